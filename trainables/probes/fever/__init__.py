"""FEVER claims about the documents, judged in the few-shot template."""

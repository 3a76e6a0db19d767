"""Questions of a user's own about the documents, with choices: by letter or by likelihood."""

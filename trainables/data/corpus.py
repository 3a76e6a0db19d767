"""The ranked documents of a study, and the first n of them (note 000, section 2).

1. Group the validation rows by evidence page: N_full pages.
2. Sort the pages by rows, descending (ties by title, ours), and keep the first N: N_top.
3. Drop a page whose text is empty or which has no training row: N_trunc remain.

Articles without claims stand after FEVER's pages, so that smaller selections are subsets of larger ones. Where
CounterFact's subjects are to come first, their own pages are looked for too, whether claims point to them or not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from trainables.data.archive import PAGE_COLUMNS, page_title
from trainables.data.detokenize import detokenize as undo_tokenisation
from trainables.data.documents import Document, Selection
from trainables.data.fever import load_splits
from trainables.data.jsonl import text_field
from trainables.data.own import read_documents, with_questions
from trainables.data.pages import add_page, load_pages
from trainables.data.source_files import SourceFiles
from trainables.data.sources import resolve_sources
from trainables.data.tables import read_table
from trainables.data.template import read_templates
from trainables.data.titles import normal_title
from trainables.errors import ConfigError


@dataclass(frozen=True)
class Corpus:
    """All documents of a study, ranked.

    Attributes:
        pages: FEVER's N_full evidence pages by rank, those included that step 3 drops.
        articles: Wikipedia articles without claims, in file order; none of them an evidence page. Behind them documents
            of the user's own, in file order.
        train_rows: rows of the whole training table.
        valid_rows: rows of the whole validation table.
        subject_pages: pages about subjects asked for (`with_subject_pages`) that are among neither.
    """

    pages: tuple[Document, ...]
    articles: tuple[Document, ...] = ()
    train_rows: int = 0
    valid_rows: int = 0
    subject_pages: tuple[Document, ...] = ()

    def first(self, num_documents: int, subjects: Collection[str] = ()) -> tuple[Document, ...]:
        """Return the first `num_documents` documents, those included that cannot be used.

        Args:
            num_documents: N_top.
            subjects: names whose pages come before all others, in their order among themselves (`subject_of`): pages
                with claims, then articles, then other pages.

        Raises:
            ConfigError: there are fewer documents.
        """
        documents = self.pages + self.articles + self.subject_pages
        there_are = len(documents)
        if num_documents > there_are:
            raise ConfigError(
                f"num_documents={num_documents}: the data has {there_are} documents ({len(self.pages)} FEVER "
                f"pages, {len(documents) - len(self.pages)} articles); lower it or add a source with more documents"
            )
        wanted = {subject_of(name) for name in subjects}
        ranked = sorted(documents, key=lambda d: subject_of(d.title) not in wanted)
        return tuple(ranked[:num_documents])

    def select(self, num_documents: int, subjects: Collection[str] = ()) -> Selection:
        """Take the first documents (see `first`) and drop those that cannot be used.

        An article is dropped for an empty text only, never for lack of training rows.
        """
        documents = tuple(document for document in self.first(num_documents, subjects) if usable(document))
        counts = {
            "n_full": len(self.pages),
            "n_top": num_documents,
            "n_trunc": len(documents),
            "train_rows": self.train_rows,
            "valid_rows": self.valid_rows,
            "train_rows_selected": sum(document.train_rows for document in documents),
            "valid_rows_selected": sum(document.valid_rows for document in documents),
            "claims_selected": sum(len(document.claims) for document in documents),
        }
        questions = sum(len(document.questions) for document in documents)
        return Selection(documents, counts | ({"questions_selected": questions} if questions else {}))


def subject_of(title: str) -> str:
    """Return a page's title as CounterFact writes subjects: `Alan_Bates_-LRB-actor-RRB-` is `Alan Bates (actor)`.

    A subject itself is returned in the same spelling, so that both can be compared.
    """
    return undo_tokenisation(normal_title(title).replace("_", " ").replace("-COLON-", ":"))


def title_of(subject: str) -> str:
    """Return the title that the page about a subject has in FEVER's spelling."""
    return normal_title(subject.strip())


def with_subject_pages(
    corpus: Corpus, data: str, subjects: Iterable[str], detokenize: bool = False, allow_missing_pages: bool = False
) -> Corpus:
    """Return a corpus with the pages about some subjects that no claim points to, from the sources' wiki-pages.

    Args:
        corpus: from `load_corpus` with the same arguments.
        data: its sources.
        subjects: names as CounterFact writes them; their pages are in this order.
        detokenize: as for `load_corpus`.
        allow_missing_pages: likewise.

    Raises:
        DataError: a broken line.
    """
    sources = resolve_sources(data, allow_missing_pages)
    if not any(source.wiki_pages for source in sources):
        return corpus
    taken = {subject_of(document.title) for document in corpus.pages + corpus.articles}
    titles = dict.fromkeys(title_of(name) for name in subjects if subject_of(name) not in taken)
    texts = load_pages(sources, titles.keys(), may_lack_all=True) if titles else {}
    found = [
        (title, undo_tokenisation(texts[title]) if detokenize else texts[title]) for title in titles if title in texts
    ]
    pages = tuple(Document(title, text, (), (), "wiki") for title, text in found)
    return replace(corpus, subject_pages=pages)


def load_corpus(data: str, detokenize: bool = False, allow_missing_pages: bool = False) -> Corpus:
    """Read the documents that `data` names.

    Args:
        data: sources joined by commas (see `trainables.data.sources`).
        detokenize: undo FEVER's tokenisation in the texts of its pages.
        allow_missing_pages: go on without the pages that a repository of the hub lacks.

    Raises:
        ConfigError: sources that contradict each other, or data that cannot be downloaded.
        DataError: a file that is missing or broken.
    """
    sources = resolve_sources(data, allow_missing_pages)
    corpus = Corpus(pages=())
    for source in sources:
        if source.has_claims:
            corpus = _fever_corpus(source, sources)
    if detokenize:
        pages = tuple(replace(page, text=undo_tokenisation(page.text)) for page in corpus.pages)
        corpus = replace(corpus, pages=pages)
    corpus = replace(corpus, articles=_articles(sources, {page.title for page in corpus.pages}))
    return _with_own(corpus, sources)


def _with_own(corpus: Corpus, sources: tuple[SourceFiles, ...]) -> Corpus:
    """Add the documents of the user's own behind the articles, and questions to all documents."""
    own = {source.name: read_documents(source) for source in sources if source.documents}
    taken = {document.title for document in (*corpus.pages, *corpus.articles)}
    added = {d.title: d for documents in own.values() for d in documents.values() if d.title not in taken}
    documents = (*corpus.pages, *corpus.articles, *added.values())
    if any(source.questions for source in sources):
        read_templates(sources)
        documents = with_questions(documents, sources, own)
    pages = len(corpus.pages)
    return replace(corpus, pages=documents[:pages], articles=documents[pages:])


def usable(document: Document) -> bool:
    """Say whether a document can be memorised and asked about: it has a text, and an evidence page a training row."""
    has_text = bool(document.text.strip())
    return has_text and (document.source != "fever" or bool(document.train_claims))


def _fever_corpus(source: SourceFiles, sources: tuple[SourceFiles, ...]) -> Corpus:
    train, valid = load_splits(source)
    texts = load_pages(sources, valid.pages.keys())
    pages = tuple(
        Document(title, texts.get(title, ""), train.pages.get(title, ()), valid.pages[title], "fever")
        for title in valid.ranking()
    )
    return Corpus(pages, train_rows=train.rows, valid_rows=valid.rows)


def _articles(sources: tuple[SourceFiles, ...], taken: set[str]) -> tuple[Document, ...]:
    """Read the articles of all sources, leaving out titles that are taken already; the first source counts."""
    articles: dict[str, Document] = {}
    for source in sources:
        found: dict[str, tuple[str, str]] = {}
        for path in source.wiki_docs:
            for where, record in read_table(path, PAGE_COLUMNS):
                title = page_title(record, where)
                if title not in taken:
                    add_page(found, title, text_field(record, "text", where), where)
        for title, (text, _) in found.items():
            articles.setdefault(title, Document(title, text, (), (), "wiki"))
    return tuple(articles.values())

"""Measures the words of docstrings and comments.

A docstring counts as a question if its first word is in QUESTIONS or its first sentence ends in `?`.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import dataclass

QUESTIONS = frozenset(
    [
        "who",
        "whom",
        "whose",
        "what",
        "which",
        "whether",
        "where",
        "wherever",
        "when",
        "whenever",
        "why",
        "how",
        "until",
        "unless",
        "while",
        "since",
        "if",
        "as",
        "is",
        "it",
        "its",
        "are",
        "was",
        "were",
        "be",
        "been",
        "do",
        "does",
        "did",
        "has",
        "have",
        "had",
        "may",
        "might",
        "can",
        "could",
        "would",
        "will",
        "shall",
        "should",
        "must",
        "that",
        "those",
        "whoever",
        "whatever",
        "nobody",
        "somebody",
        "everybody",
        "anybody",
        "nothing",
        "something",
        "everything",
        "anything",
    ]
)

INDEFINITE = frozenset(
    [
        "it",
        "itself",
        "that",
        "these",
        "those",
        "they",
        "them",
        "who",
        "whom",
        "whose",
        "what",
        "whoever",
        "whatever",
        "one",
        "there",
        "here",
        "somebody",
        "anybody",
        "nobody",
        "everybody",
        "someone",
        "anyone",
        "something",
        "anything",
        "nothing",
        "everything",
        "goes",
        "go",
        "went",
        "gone",
        "comes",
        "come",
        "came",
        "told",
        "tell",
        "tells",
        "said",
        "says",
        "say",
        "asked",
        "asks",
    ]
)

WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
SENTENCE = re.compile(r"[.?!:](?=\s|$)")
CODE = re.compile(r"`[^`]*`")


@dataclass
class Words:
    docstrings: int = 0
    questions: int = 0
    words: int = 0
    indefinite: int = 0

    def add_source(self, source: str, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text:
                    self.docstrings += 1
                    self.questions += is_question(text)
                    self._count(text)
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                self._count(token.string)

    def _count(self, text: str) -> None:
        found = [word.lower() for word in WORD.findall(CODE.sub(" ", text))]
        self.words += len(found)
        self.indefinite += sum(word.split("'")[0] in INDEFINITE for word in found)


def is_question(docstring: str) -> bool:
    first = WORD.search(docstring)
    end = SENTENCE.search(docstring)
    asks = end is not None and end.group() == "?"
    return asks or (first is not None and first.group().lower() in QUESTIONS)

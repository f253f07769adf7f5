"""The words that a local corpus is searched by, the same for passages and queries, in any language.

A word is a run of letters and digits, whatever their case, width and accents. Chinese, Japanese, Korean and the scripts
of South-East Asia put no spaces between words, or join endings to them: in these every two neighbouring characters are
a word, as in Lucene's CJKAnalyzer, and a single character is one where it stands alone.
"""

import re
import unicodedata
from itertools import pairwise

import regex
from bm25s.stopwords import STOPWORDS_EN

_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}ー\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_CHARACTER = regex.compile(rf"(?V1)[{_UNSPACED}&&[\p{{L}}\p{{N}}]]\p{{M}}*")  # with its vowel signs and tone marks
_RUN = regex.compile(
    rf"(?V1)(?P<unspaced>(?:[{_UNSPACED}&&[\p{{L}}\p{{N}}]]\p{{M}}*)+)|(?:[[\p{{L}}\p{{N}}]--{_UNSPACED}]\p{{M}}*)+"
)
_ASCII_RUN = re.compile(r"[a-z0-9]+")
_ACCENTS = re.compile(r"[\u0300-\u036f]+")
_ENDINGS = re.compile(r"['’](?:s|t|d|m|ll|re|ve)\b", re.IGNORECASE)
_STOPWORDS = frozenset(STOPWORDS_EN)


def query_words(text: str) -> list[str]:
    """What is looked for: words without English stop words, pairs of characters, and characters that stand alone."""
    return _words(text, every_character=False)


def passage_words(text: str) -> list[str]:
    """What a passage is found by: `query_words` and each single character, so that 猫 finds 黒猫."""
    return _words(text, every_character=True)


def _words(text: str, every_character: bool) -> list[str]:
    text = _ENDINGS.sub("", _fold(text))
    if text.isascii():
        words = _ASCII_RUN.findall(text)
    else:
        words = []
        for run in _RUN.finditer(text):
            if run["unspaced"] is None:
                words.append(run.group())
                continue
            characters = _CHARACTER.findall(run.group())
            words.extend(first + second for first, second in pairwise(characters))
            if every_character or len(characters) == 1:
                words.extend(characters)
    return [word for word in words if word not in _STOPWORDS]


def _fold(text: str) -> str:
    """Lower case, without accents, full-width forms and ligatures."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFKD", text)))
    return text.casefold()

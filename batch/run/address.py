"""Whether the base URL is the API's at all.

A mistyped address answers every request with a page. As long as no task of ours was ever seen there,
a few pages in a row prove that it is the wrong one, and that what was answered by a page was not
created. Where a task was ever seen, a page is an answer lost like any other.
"""

from __future__ import annotations

from batch.provider.answers import Ambiguous, Created, Found, QueryAnswer, SubmitAnswer, Unavailable

PAGES = 3  # in a row


class Address:
    """What the answers of one run say about the base URL; *is_known*: a task was ever seen there."""

    def __init__(self, *, is_known: bool) -> None:
        self.is_known = is_known
        self._pages = 0

    @property
    def is_wrong(self) -> bool:
        """Whether the answers come from no API."""
        return not self.is_known and self._pages >= PAGES

    def note(self, answer: SubmitAnswer | QueryAnswer) -> None:
        """Take an answer in."""
        match answer:
            case Ambiguous(is_page=True) | Unavailable(is_page=True):
                self._pages += 1
            case Created() | Found():
                self.is_known = True
            case _ if answer.failure.http_status is not None:
                self._pages = 0
            case _:
                pass  # a broken connection says nothing about who would have answered

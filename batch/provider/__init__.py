"""Kling's text2video by way of CometAPI, or of any gateway that serves the same API.

The public face is `protocol.VideoApi`, implemented by `client.Client`, and the values of `answers`:

    async with Client(base_url=…, key=…, …) as api:
        match await api.submit(body, not_after=…, resent=False):
            case Created(task): ...    # paid for; every other answer says whether it may be
        match await api.query(task.task_id):
            case Found(task) if task.url: ...
        async with api.fetch(task.url) as stream: ...

Everything that understands an answer is free of I/O, in layers that import downwards only:

- `codes`, `words`, `passing`: the provider's codes, and words in English, Chinese and some other
  languages, and what they mean.
- `fields`, `links`: one foreign value at a time, read from JSON or a header.
- `shapes`: one answer of any known shape, made a `Reading`.
- `wire`: what a reading means under its HTTP status; its docstring holds the order of authority.
- `client`, `files`, `network`: aiohttp, and nothing else: requests, signed links, sessions.
"""

from __future__ import annotations

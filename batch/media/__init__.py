"""Is a downloaded file a complete video, and is it the one that was asked for?

The public face, all of it in `check`:

- `inspect(path)` returns size, duration and marks of origin, or raises `MediaError` with the reason in plain words.
- `compare(video, aspect_ratio, duration)` returns a warning for each difference.

`check` reads through `index` (tracks, durations), `pictures` (what the samples hold) and `marks`
(Content Credentials, XMP, labels), and those through `boxes` (the bytes).
Every read and every loop is bounded, whatever the file claims about itself.
"""

from __future__ import annotations

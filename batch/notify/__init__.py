"""Whoever asked for it is told how a run has ended. It never changes how it ends.

    channels   whom to tell: `notify:` of the manifest, and KLING_BATCH_NOTIFY_… , which needs none
    news       is there any? compared with the fact `told` of the state, kept by the last delivery
    message    what is told: the summary as JSON and as text
    deliver    all channels at once, within one timeout:
                   command    a process without a shell; killed with its children at the timeout
                   web        webhook and pings; the only file that loads the network's library

    run ends → last commit → lock released → news? → deliver → told

A command or a webhook is told where `notify.on` says so; a ping is sent by every run, since silence is
what its monitor warns of. An address is a secret: nothing but its host is ever shown.

Public face: `Channels` and `channels_of` in `channels`, `read_news` in `news`, `Message` in `message`,
`deliver` and `StartPing` in `deliver`.
"""

from __future__ import annotations

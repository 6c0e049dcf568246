"""Whether a failed task's reason is known to pass: then alone it is retried at once.

A passing reason is made of these words and no other: "generation failed" passes, "generation failed:
shows a landmark" says something of its own.
"""

from __future__ import annotations

import re

from batch.provider.words import plain

_PASSING = frozenset(
    plain(
        "error errors failed failure fail fails busy overload overloaded timeout timeouts timed out"
        " unavailable internal unknown retry again later capacity saturated congestion maintenance"
        " crashed interrupted aborted none null exception wrong unexpected memory reset deadline rate"
        " gateway"
    ).split()
)
_FILLER = frozenset(
    plain(
        "a an the of in to for on at by from with and or due because is was were are be been has have"
        " had it this that our your you we us i please sorry kindly can could not unable cannot did do"
        " does about some something went happened occurred encountered while during when generation"
        " generate generating generated video videos task tasks job request requests result results"
        " model server servers service services system backend upstream provider network connection"
        " execution execute executing processing process processed complete completed create"
        " creating created temporarily temporary currently current too many other high heavy load"
        " demand traffic message status code reason time try trying few minutes moment seconds after"
        " soon support contact if persists problem issue s now gpu cuda worker queue polling"
        " inference resource resources peer context limit exceeded bad id ids"
    ).split()
)
_PASSING_ZH = re.compile(
    r"失败|错误|出错|异常|繁忙|忙碌|超时|逾时|过载|饱和|稍后|稍候|再试|重试|中断|未知|不可用|不足"
)
_FILLER_ZH = re.compile(
    r"当前|暂时|无法|未能|请求|请您?|您的?|的|了|在|时|后|重新|一下|分组|上游|负载|已|正在|处理|执行|完成"
    r"|视频|图片|任务|生成|服务器?|伺服器|系统|内部|网络|模型|连接|网关|发生|出现|过高|较?高|次|排队|推理|算力|资源"
)


def is_passing(reason: str) -> bool:
    """Return whether a reason is known to pass: none at all, or one made of passing words only."""
    # Ids and numbers say nothing; what stands next to one without a blank does.
    text = re.sub(r"[a-z]*\d[a-z\d]*", " ", plain(reason))
    words = re.findall(r"[^\W_]+", text)
    latin = [word for word in words if word.isascii()]
    others = "".join(word for word in words if not word.isascii())
    rest = _FILLER_ZH.sub("", _PASSING_ZH.sub("", others))
    is_known = not rest and all(word in _PASSING or word in _FILLER for word in latin)
    says = _PASSING_ZH.search(others) is not None or not _PASSING.isdisjoint(latin)
    is_silent = re.search(r"\w\w", reason) is None
    if re.search(r"\bnot support\b", " ".join(words)):  # this request: made of fillers, and lasting
        return False
    return is_silent or (is_known and says)

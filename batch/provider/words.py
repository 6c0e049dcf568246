"""What foreign words mean, in English and Chinese. Read only where no code settles the matter.

Every pattern is searched in a `plain` text. A list of words never ends: what is in none of these lists
has a safe verdict in `batch.provider.wire`, whatever it says.
"""

from __future__ import annotations

import re


def plain(text: str) -> str:
    """Return *text* in lower case, without the marks that join words: `Rate_Limit` is `rate limit`."""
    return " ".join(re.sub(r"[_\-.\u2019']+", " ", text.lower()).split())


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns))


# -- about the account -----------------------------------------------------------------------

_MONEY = r"(quota|balance|credits?|funds?|points|resource pack)\b"
_SOME = r"([\w$]+ ){0,3}"  # a few words in between

CREDIT = _any(
    rf"(insufficient|(not|n t) (have )?enough|exhausted|depleted|out of|zero) {_SOME}{_MONEY}",
    rf"\b(no|low|used up) ((more|remaining|available|your|the|api|account) )*{_MONEY}",
    rf"{_MONEY} {_SOME}(not enough|insufficient|exhausted|depleted|used up|too low|ran out|run out)",
    rf"{_MONEY} {_SOME}(is (low|empty|zero|0)|expired|has ended|exceeded)",
    rf"exceeded {_SOME}(quota|balance|credit)|insufficient(quota|balance|credit|fund)",
    r"quotaexceeded|overdue|in arrears|payment required|unpaid|billing|top ?up|recharge",
    rf"(add|buy|purchase) {_SOME}(credits?|funds)\b|(spend|credit|billing) ?(ing)? limit",
    rf"(subscription|trial|plan) {_SOME}(expired|ended|inactive|required)",
    r"(余额|额度|积分|点数|算力|资源包|流量包|套餐|配额).{0,8}(不足|不够|用尽|用完|耗尽|过期|为 ?0)|欠费|充值|续费",
)
# A quota of requests in a time passes by itself.
_PER_TIME = _any(r"per (second|minute|hour|day)", r"\b[rtq]p[smd]\b", r"requests? (limit|rate)")

_KEY = r"(api ?key|access ?key|secret ?key|access token|auth token|token|credentials?|signature)\b"
KEY = _any(
    rf"\b(invalid|incorrect|wrong|missing|expired|revoked|disabled|no) {_SOME}{_KEY}(?! (at|in|near))",
    rf"{_KEY} {_SOME}(invalid|incorrect|missing|expired|revoked|disabled|required|deleted|banned)",
    rf"{_KEY} {_SOME}(not (found|valid|exist|provided|active)|does not exist)|invalidapikey",
    r"unauthori[sz]ed|not authori[sz]ed|unauthenticated|authenticat(e|ion)|authorization (failed|header)",
    r"permission denied|access (is )?denied|accessdenied|please log ?in",
    rf"(no|not have|n t have|without|lacks?) {_SOME}(permissions?|access)\b",
    rf"(account|user|organi[sz]ation) {_SOME}(suspended|disabled|banned|locked|deactivated|frozen|inactive|restricted)",
    rf"\bip {_SOME}(whitelist|allowlist|not allowed|blocked|banned)",
    r"(令牌|密钥|秘钥|api ?key|token).{0,8}(无效|错误|过期|失效|禁用|不存在|不可用|为空|不正确)",
    r"无效的?(令牌|密钥|秘钥|api ?key|token)|未提供.{0,4}(令牌|密钥|token)|未授权|鉴权|认证失败|身份验证",
    r"(无|没有).{0,4}(权限|权访问)|(账号|账户|帐号|帐户|用户).{0,8}(封禁|封停|冻结|禁用|停用|异常|锁定|注销)",
)
ROUTE = _any(r"invalid url|unsupported relay mode|no route|cannot (post|get)\b")

# -- about this moment -----------------------------------------------------------------------

PARALLEL = _any(
    r"parallel task|concurren|(queue|task pool) (is )?full|too many ([a-z]+ )?(tasks|jobs)\b",
    rf"too many (active|running|pending|queued|parallel)|(active|running|pending) (tasks?|jobs?) {_SOME}limit",
    r"并发|并行|(队列|排队).{0,4}(满|上限)|(任务数|进行中|运行中|同时).{0,12}(上限|过多|超过|限制)",
)
THROTTLED = _any(
    r"too many requests|toomanyrequests|rate ?limit|throttl|slow down|too (fast|frequent)",
    r"(call|request|access|api) frequency|frequency (is )?(too|limit|exceed)",
    r"requests? per (second|minute|hour|day)|\b[rtq]p[smd]\b|saturated|overload|(at|over|exceeds?) capacity",
    r"(high|heavy|peak) (load|demand|traffic)|(load|demand|traffic) (is )?(too )?high",
    r"请求.{0,6}(频繁|过多|过快|频率)|频率.{0,6}(限制|过高|超)|调用.{0,4}频|限流|限速|饱和|过载|人数过多|高峰",
    r"负载.{0,4}(过高|已满|上限)|资源紧张",
)
NOT_NOW = _any(
    r"try (it )?again|retry|come back|\bbusy\b|(temporarily|currently|service) (is )?unavailable",
    r"maintenance|unavailable (right now|at th)|not ready|later\b",
    r"稍后|稍候|再试|重试|繁忙|忙碌|维护|暂时|暂不可用",
)

# -- about what has happened -----------------------------------------------------------------

# Those who have sent the request on write so, and have lost the answer.
UNSURE = _any(
    r"timed? ?out|deadline exceeded|context cancel|being processed|already in progress",
    r"connection (was )?(reset|closed|aborted|refused)|bad gateway|internal (server )?error|unknown error",
    r"超时|处理中|内部错误|系统错误|未知错误|服务器?(错误|异常)",
)
UPSTREAM = _any(r"upstream|bad ?response|上游")
TAKEN = _any(r"duplicat|already (exist|been used|used)|\bexists\b|\bunique\b|已存在|重复")
EXTERNAL = _any(r"external ?task ?id")
ABSENT = _any(r"not (be )?(found|exist)|notexist|不存在")

# -- about the request -----------------------------------------------------------------------

MODERATION = _any(
    r"risk ?(control|detect|manag)|(high|exists?) risk|content ?(security|filter|polic|review|restrict)",
    r"moderat|sensitiv|safety|unsafe|harmful|nsfw|inappropriat|offensive|obscen|flagged|filtered|violat|infring",
    r"polic(y|ies)\b|guidelines?\b|terms of (service|use)|community standard|responsible ai|compl(y|ian)",
    r"prohibit|disallowed|forbidden (content|word)|banned word|copyright|trademark|intellectual property",
    r"public figure|celebrit|real (person|people)|likeness|deepfake|underage|minors\b|child",
    r"nud(e|ity)\b|sexual|porn|erotic|adult content|violen|gore\b|weapon|drugs\b|hate(ful)?\b|terror|self harm",
    r"(famous|recogni[sz]able|identifiable) (person|people|individual|figure)",
    r"politic|censor|(request|prompt|content|generation|input|output) (was |is |has been )?(blocked|rejected)",
    r"敏感|风控|风险|违规|违禁|违反|违背|违法|规范|准则|审核|审查|安全|不合规|合规|涉政|涉嫌|涉黄|涉暴|政治|色情|低俗|暴力|血腥|侵权|版权",
    r"名人|公众人物|真人|禁止|政策|不当|不适宜|不良|不允许|拦截|屏蔽|未成年|肖像",
)
INVALID = _any(
    r"\binvalid\b|unsupported|not supported|exceeds?\b|must be\b|参数.{0,6}(错误|无效|不合法)|不支持"
)

# -- a reason that is known to pass ----------------------------------------------------------

# A passing reason is made of these words and no other: "generation failed" passes, "generation
# failed: shows a landmark" says something of its own.
_PASSING = frozenset(
    plain(
        "error errors failed failure fail fails busy overload overloaded timeout timeouts timed out"
        " unavailable internal unknown retry again later capacity saturated congestion maintenance"
        " crashed interrupted aborted none null exception wrong"
    ).split()
)
_FILLER = frozenset(
    plain(
        "a an the of in to for on at by from with and or due because is was were are be been has have"
        " had it this that our your you we us i please sorry kindly can could not unable cannot did do"
        " does about some something went happened occurred encountered while during when generation"
        " generate generating generated video videos task tasks job request requests result results"
        " model server servers service services system backend upstream provider network connection"
        " gateway execution execute executing processing process processed complete completed create"
        " creating created temporarily temporary currently current too many other high heavy load"
        " demand traffic message status code reason time try trying few minutes moment seconds after"
        " soon support contact if persists problem issue n t s"
    ).split()
)
_PASSING_ZH = re.compile(
    r"失败|错误|出错|异常|繁忙|忙碌|超时|过载|饱和|稍后|稍候|再试|重试|中断|未知"
)
_FILLER_ZH = re.compile(
    r"当前|暂时|不可用|无法|未能|请您?|您的?|的|了|在|时|后|重新|一下|分组|上游|负载|已|正在|处理|执行|完成"
    r"|视频|图片|任务|请求|生成|服务器?|系统|内部|网络|模型|连接|网关|发生|出现|过高|较?高|次"
)


def is_passing(reason: str) -> bool:
    """Return whether a reason is known to pass: none at all, or one made of passing words only."""
    text = re.sub(r"\S*\d\S*", " ", plain(reason))  # ids and numbers say nothing
    words = re.findall(r"[^\W_]+", text)
    latin = [word for word in words if word.isascii()]
    others = "".join(word for word in words if not word.isascii())
    rest = _FILLER_ZH.sub("", _PASSING_ZH.sub("", others))
    is_known = not rest and all(word in _PASSING or word in _FILLER for word in latin)
    says = _PASSING_ZH.search(others) is not None or not _PASSING.isdisjoint(latin)
    return not reason.strip() or (is_known and says)


def says_no_credit(words: str) -> bool:
    """Return whether the account has nothing left, and not only for this minute."""
    return CREDIT.search(words) is not None and _PER_TIME.search(words) is None

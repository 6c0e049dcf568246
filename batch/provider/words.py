"""What foreign words mean, in English and Chinese, and a few about credit and haste in other languages.

Read only where no code settles the matter. Every pattern is searched in a `plain` text. A list of
words never ends: what is in none of these lists has a safe verdict in `batch.provider.wire`,
whatever it says.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property

# Of traditional characters, the simplified ones that the patterns are written in.
_SIMPLIFIED = str.maketrans(
    "餘額請頻數過點積資費儲帳戶並併發載開時後試調訪問審違規風險權無認證驗錯誤異處務連網絡關進運隊滿達暫維護購買會員級"
    "續應該為負盡夠鑰凍結當擠壓類圖視參條識齡黃協則準範檢測監攔適標複較號碼長產樣機斷繼單綁幣鑽體優訂閱賬憑據內態狀緊"
    "張創製從專業禮臉獲傳銷鎖廢棄對嘗動輸統敗飽組壞齊現圍詞",
    "余额请频数过点积资费储账户并并发载开时后试调访问审违规风险权无认证验错误异处务连网络关进运队满达暂维护购买会员级"
    "续应该为负尽够钥冻结当挤压类图视参条识龄黄协则准范检测监拦适标复较号码长产样机断继单绑币钻体优订阅账凭据内态状紧"
    "张创制从专业礼脸获传销锁废弃对尝动输统败饱组坏齐现围词",
)


def plain(text: str) -> str:
    """Return *text* in lower case and plain words: `Rate_Limit` is `rate limit`, *isn't* is `is not`.

    Traditional Chinese becomes simplified, and what Japanese shares with it.
    """
    text = re.sub(r"n['\u2019]t\b", " not", text).translate(_SIMPLIFIED)
    return " ".join(re.sub(r"[_\-.\u2019']+", " ", text.lower()).split())


class _Any:
    """Any of some patterns, compiled when it is first searched: most runs hear nothing foreign."""

    def __init__(self, *patterns: str) -> None:
        self._patterns = patterns

    @cached_property
    def search(self) -> Callable[[str], re.Match[str] | None]:
        """Return the first match in a text."""
        return re.compile("|".join(self._patterns)).search


# -- about the account -----------------------------------------------------------------------

_MONEY = r"(quota|balance|credits?|funds?|points|resource pack(age)?)\b"
_SOME = r"([\w$]+ ){0,3}"  # a few words in between

_MONEY_ZH = (
    r"(余额|额度|配额|积分|点数|点券|资源包|流量包|套餐|会员|订阅|代金券|优惠券|体验金|资金|金币|钻石"
    r"|灵感值|算力[点值])"
)

CREDIT = _Any(
    rf"(insufficient|not (have )?enough|exhausted|depleted|out of|zero|negative|lack of) {_SOME}{_MONEY}",
    rf"\b(no|low|used up) ((more|remaining|available|your|the|api|account) )*{_MONEY}",
    rf"{_MONEY} {_SOME}(not (enough|sufficient)|insufficient|exhausted|depleted|used up|too low)",
    rf"{_MONEY} {_SOME}(ran out|run out|is (low|empty|zero|0)|expired|has ended)",
    r"insufficient(quota|balance|credit|fund)|\barrear|payment required|account ?overdue",
    r"(cannot|ca not) afford|(spend|credit|billing) ?(ing)? limit|\b0 ([a-z]+ )?credits?\b",
    rf"(add|buy|purchase) {_SOME}(credits?|funds)\b",
    rf"(subscription|trial|plan) {_SOME}(expired|ended|inactive|required)",
    rf"(need|requires?) {_SOME}more {_MONEY}|{_MONEY} (required|needed|remaining 0)",
    rf"(remaining|left) {_MONEY} (is )?(0|zero)|(run|ran) out of money",
    r"(spend(ing)?|usage|hard) (cap|limit) (has been |was |is )?(reached|hit|exceeded)",
    rf"{_MONEY_ZH}(?:(?!并发|并行).){{0,8}}(不足|不够|用尽|用完|用罄|耗尽|过期|到期|失效|为 ?[0零]|为负|过低|低于)",
    rf"(没有|无|缺少|需要|缺乏)(足够|可用|剩余|更多|任何|的)*{_MONEY_ZH}|次数.{{0,4}}(不足|不够|用尽|用完|用罄|耗尽)",
    r"(没有|无)(可用|剩余)(的|免费)*次数|(达到|超[出过]).{0,6}消费(上限|限额)",
    r"欠费|预扣费|剩余额度|(账户|账号|用户).{0,4}(停服|逾期)",
    r"(残高|クレジット|ポイント|残额).{0,6}(不足|足り|なくなり|切れ|ありません|がない)",
    r"(잔액|크레딧|포인트).{0,8}(부족|소진|초과|없)|(사용|이용|금액|결제) ?한도.{0,4}(소진|초과)",
    r"(saldo|cr[eé]ditos?|fondos) .{0,16}(insuficien|agotad|esgotad|acab)|insuficien\w* .{0,12}(saldo|cr[eé]dito|fondos)",
    r"(solde|cr[eé]dits?) .{0,16}(insuffisant|[eé]puis)|(guthaben|kontingent) .{0,24}(reicht nicht|aufgebraucht|ersch[oö]pft)",
    r"\b(no|n[aã]o|sin|sem) (\w+ ){0,2}(saldo|cr[eé]ditos|fondos)\b|(assez|plus|pas) de (cr[eé]dits?|solde)\b",
    r"((nicht (genug|genügend|ausreichend\w*)|unzureichend\w*|zu wenig|kein) guthaben)|credito insufficiente",
    r"недостаточно (средств|кредитов|баланса)|(баланс|кредит).{0,16}(исчерпан|закончил|недостаточ)",
)
# What prompts and their refusals are about, too.
_CREDIT_TOPIC = _Any(
    rf"upgrade {_SOME}(plan|subscription|account|tier|membership)\b|payment method",
    r"overdue|unpaid|billing|top ?up|recharge|wallet|please subscribe",
    rf"(购买|开通|升级|订阅).{{0,4}}{_MONEY_ZH}|未(支付|付费|付款|结清)",
    r"充值|储值|续费|付费|支付方式|チャージ|충전|пополните",
)
_FIELD = _Any(r"\b(field|param(eter)?|argument)s?\b|字段|参数")  # named like one of these
# Points of another kind: those of a path in a picture.
_GEOMETRY = _Any(r"trajector|coordinate|(control|key|mask|path|anchor) ?points")
_EXCEEDED = _Any(
    rf"(quota|balance|credits?) {_SOME}exceeded|exceeded {_SOME}quota|quotaexceeded",
    r"(超出|超过|达到).{0,6}(额度|配额)|(额度|配额).{0,4}(超限|超出|已满)",
)
# A quota of requests in a time passes by itself.
_RATE = r"(?<![a-z])[rtq]p[smd](?![a-z])"
_PER_TIME = _Any(
    r"per (second|minute|hour|day)", _RATE, r"requests? (limit|rate)", r"每(秒|分钟?|小时)"
)

_KEY = (
    r"(api ?key|access ?key|secret ?key|access token|auth token|token|jwt|credentials?|signature)\b"
)
_KEY_ZH = r"(api ?)?(令牌|密钥|秘钥|api ?key|token)"
_BAD = r"(invalid|incorrect|wrong|missing|expired|revoked|disabled|deleted|banned)"
KEY = _Any(
    rf"\b(?<!contain )(?<!contains )({_BAD}|no|not (provide|include|send)) {_SOME}{_KEY}(?! (at|near|in (json|line|position)|[{{}}<>\[\]]))",
    rf"{_KEY} {_SOME}({_BAD}|required|not (found|valid|exist|provided|active|allowed)|verification failed)",
    rf"{_KEY} {_SOME}does not exist|invalidapikey|unauthori[sz]ed|not authori[sz]ed|unauthenticated",
    r"auth(orization)? (failed|error|header)",
    rf"(account|user|organi[sz]ation) (?!prompt|input|content|text){_SOME}(suspended|disabled|banned|locked|deactivated|frozen|inactive)",
    rf"(account|organi[sz]ation) {_SOME}(restricted|not (activated|active))",
    r"\bip .{0,24}(whitelist|allowlist)",
    rf"{_KEY_ZH}.{{0,8}}(无效|错误|过期|失效|禁用|不存在|不可用|为空|不正确|(验证|校验)失败)",
    rf"无效的?{_KEY_ZH}|未提供.{{0,4}}{_KEY_ZH}|鉴权|认证失败|身份验证|未登录|请登录",
    r"(账号|账户|帐号|帐户).{0,8}(封禁|封停|冻结|禁用|停用|异常|锁定|注销)",
    r"api ?(キー|키|schl[uü]ssel|ключ)|(clave|chave|cl[eé]) (de )?(la )?api\b",
)
_KEY_TOPIC = _Any(
    r"authenticat(e|ion)|\blog(ged)? ?in\b|permission denied|access (is )?denied|accessdenied",
    rf"(no|not have|without|lacks?) {_SOME}(permissions?|access)\b",
    rf"\bip {_SOME}(not allowed|blocked|banned)",
    r"未授权|无权|没有.{0,4}权限|用户.{0,8}(封禁|封停|冻结|禁用|停用|异常|锁定|注销)",
)
# Another door that was closed: that of a file, or of whoever is to be called.
_OTHERS_DOOR = _Any(
    r"(callback|webhook|image|audio|file|media) ?url|(download|fetch)\w* .{0,12}(image|file|audio|media)"
)
ROUTE = _Any(r"invalid url|unsupported relay mode|no route|cannot (post|get)\b")

# -- about this moment -----------------------------------------------------------------------

_WAITING = r"(running|active|pending|queued|in progress|simultaneous)"
PARALLEL = _Any(
    r"parallel task|concurren|(queue|task pool) (is )?full|too many ([a-z]+ )?(tasks|jobs)\b",
    rf"(slots?|workers?) {_SOME}(exhausted|full|taken|in use)|no (free|available) slots?",
    rf"only (have )?[0-9]+ ({_WAITING} )?(tasks|jobs|videos|generations)\b|already have [0-9]+ {_SOME}(tasks|jobs|videos|generat)",
    rf"(task|job) queue {_SOME}(limit|full)|too many {_WAITING}|(max|maximum|limit)\b.{{0,24}}\b{_WAITING}|\b{_WAITING}\b.{{0,24}}(limit|max)",
    r"并发|并行|(队列|排队).{0,4}(满|上限)|(任务数|进行中|正在进行|运行中|同时(?!使用|设置|指定|传|存在|支持)).{0,12}(上限|过多|太多|超过|限制)",
    r"任务(数量?)?.{0,2}(过多|太多)|동시 ?(작업|실행|요청)|одновременн\w* (задач|запрос)",
    r"gleichzeitige\w* (aufgaben|anfragen|jobs)|(tareas|tarefas|t[aâ]ches) .{0,16}simult[aáâ]n",
)
THROTTLED = _Any(
    r"too many requests|toomanyrequests|rate ?limit|throttl|slow down",
    r"(?<!frame )(?<!bit )rate exceeded|requests? rate .{0,4}too high|(?<!motion )(?<!movement )too (fast|frequent|quick)",
    r"(?<!per )(call|request|access|api) (frequency|limit\b(?!:))|frequency (is )?(too|limit|exceed)|resource ?exhausted",
    rf"requests? per (second|minute|hour|day)|{_RATE}|saturated|overload",
    r"(at|over|exceeds?|insufficient|no) capacity|capacity (is )?(exceeded|reached|full)",
    r"(high|heavy|peak) (load|demand|traffic)|(load|demand|traffic) (is )?(too )?high",
    r"(请求|操作|访问|调用|提交)(?:(?!参数|体|大小|长度|字|内容).){0,6}(频繁|过多|过快|频率|超限|超过限制)|频率.{0,6}(限制|过高|超)|调用.{0,4}频|限流|限速|饱和|过载|人数过多",
    r"负载.{0,4}(过高|已满|上限)|高峰|(资源|算力).{0,2}(紧张|不足)|(过于|太过?|过度)频繁|频繁(请求|操作|访问|调用|提交)|^[太过]快|(操作|请求|提交|访问)\w{0,4}[太过]快|请慢|速率.{0,6}(限|超|过)|限速",
    r"每(秒|分钟?|小时).{0,12}(超|限|用完|用尽|过多)|流控|流量.{0,4}(过大|限制|控制)|访问量.{0,4}大|人数.{0,4}(过多|较多|太多)|次数.{0,4}(超限|超过|过多|上限)",
    r"リクエスト(?:(?!パラメ|サイズ|本文|ボディ).){0,8}(多すぎ|制限|超え|上限)|レート制限|混雑|混み合|혼잡",
    r"요청.{0,8}(너무 많|과도)|요청 ?(횟수|수|빈도|속도|한도)?.{0,2} ?(제한|초과)|너무 많은 요청",
    r"demasiad[ao]s (solicitudes|peticiones)|muit[ao]s (solicita|requisi)|trop de (requ[eê]tes|demandes)",
    r"l[ií]mite de (solicitudes|peticiones|velocidad|taxa|requisi|requ[eê]tes|d[eé]bit)",
    r"zu viele anfragen|(anfrage|raten)n?limit|troppe richieste|слишком много (запросов|попыток)|лимит запросов",
)
NOT_NOW = _Any(
    r"try (it )?again|retry|come back|\bbusy\b|(temporarily|currently|service) (is )?unavailable",
    r"maintenance|(unavailable|not available) (right now|at th)|no available|not ready|later\b",
    r"(please )?wait (a|for|until)\b",
    r"稍后|稍候|再试(?!行)|重试|繁忙|忙碌|维护|暂时|暂不可用|无可用|请?稍等|请等待",
)
_LATER = _Any(
    r"しばらく|后ほど|再试行|잠시 후|나중에|다시 시도|más tarde|mais tarde|plus tard|später|позже|più tardi",
)

# -- about what has happened -----------------------------------------------------------------

# A gateway writes so that has sent the request on and has lost the answer.
UNSURE = _Any(
    r"timed? ?out|deadline exceeded|context cancel|being processed|already in progress",
    r"connection (was )?(reset|closed|aborted|refused)|bad gateway|internal (server )?error|unknown error",
    r"超时|逾时|处理中|内部错误|系统错误|未知错误|(服务|伺服)器?(错误|异常)",
    r"タイムアウト|内部エラー|(システム|サーバー?|不明な)エラー",
    r"시간.{0,4}초과|타임아웃|(내부|서버|시스템|알 수 없는) .{0,4}오류|처리 중",
    r"(error|erro|errore|erreur) (interno|interne|del? serv|do serv|no serv|serveur|des[ck]o|sconosc|inconn)",
    r"(tiempo|tempo) .{0,16}(agotado|excedido|esgotado|scaduto)|d[eé]lai .{0,16}(d[eé]pass|expir|[eé]coul)",
    r"(interner|unbekannter|server) ?fehler|interner serverfehler|zeitüberschreitung",
    r"(внутренняя|неизвестная) ошибка|ошибка сервера|время .{0,12}(истекло|вышло)|та[йи]м ?аут",
)
UPSTREAM = _Any(r"upstream|bad ?response|上游")
TAKEN = _Any(r"duplicat|already (exist|been used|used)|\bexists\b|\bunique\b|已存在|重复")
EXTERNAL = _Any(r"external ?task ?id")
ABSENT = _Any(r"not (be )?(found|exist)|notexist|不存在")

# -- about the request -----------------------------------------------------------------------

# Of Kling; relays quote them in words.
MODERATION_CODE = _Any(r"(?<![a-z0-9])(code|error|err|e)?_?130[01](?![a-z0-9])")
MODERATION = _Any(
    r"risk ?(control|detect|manag)|(high|exists?) risk|content ?(security|filter|polic|review|restrict)",
    r"moderat|sensitiv|safety|unsafe|harmful|nsfw|inappropriat|offensive|obscen|flagged|filtered|violat",
    r"polic(y|ies)\b|guidelines?\b|(our|your) (rules|terms)|terms of (service|use)|community standard",
    r"responsible ai|compl(y|ian)|prohibit|disallowed|illegal|infring|audit|data ?inspection|censor",
    r"(security|content|output|input|our) (check|review)|(forbidden|banned) (content|word|token|term)",
    r"(?<!fields )not (be )?(appropriate|permitted|suitable)|(?<!connection )(refused|rejected|blocked)\b",
    r"copyright|trademark|intellectual property|third party (content|ip)\b",
    r"public figure|celebrit|(real|famous|recogni[sz]able|identifiable) (person|people|individual)",
    r"face detected|likeness|deepfake|underage|minors\b|child|nud(e|ity)\b|sexual|porn|erotic|explicit",
    r"\badult\b|violen|gore\b|weapon|drugs\b|hate(ful)?\b|terror|self harm|politic",
    r"敏感|风控|风险|违规|违禁|违反|违背|违法|规范|准则|审核|审查|机审|安全|不合规|合规|涉政|涉嫌|涉黄|涉暴",
    r"政治|色情|低俗|暴力|血腥|侵权|版权|名人|公众人物|真人|人脸|禁止|政策|不当|不适宜|不良|不允许|拦截|屏蔽",
    r"未成年|肖像|违禁词|禁用词|不适切|ガイドライン|ポリシー|规约|부적절|정책|유해|민감|위반",
    r"verst[oö](ß|ss)|richtlinien|unangemessen|inap?propr?i|impr[oó]pri|in?ade[cq]uad|\bviola\b|pol[ií]ticas\b",
    r"enfrein|нарушает|недопустим\w+ (содерж|контент)",
)
# What is refused then: not the account, although the words may be about money or permission.
_CONTENT = _Any(
    r"\b(user )?(prompt|content|input|text|image|video|picture|character|word|term|contain)s?\b|likeness",
    r"提示词|内容|输入|文案|文本|图片|画面|肖像|人物|描述|词汇|包含|含有|品牌|プロンプト|コンテンツ|프롬프트|콘텐츠|내용",
    r"inhalt|contenido|conte[uú]do|contenu|содерж|контент",
)
_CHECK_BUSY = _Any(
    r"(moderation|safety|security|review|audit) (check )?(service|system|server)s? .{0,16}(busy|unavailable|not available)",
    r"(审核|审查|安全|风控|检测).{0,4}(服务|系统|接口).{0,4}(繁忙|忙碌|不可用|维护)",
)
# To be tried again, but not as it is.
_REQUEST = r"(prompts?|param(eter)?s?|inputs?|request|content|text|values?|duration|image)\b"
_REQUEST_ZH = r"(prompt|duration|提示词|参数|内容|输入|文案|图片|描述|词)"
_CHANGE_ZH = r"(修改|更换|调整|检查|修正|更改|换个|精简|缩短|减少|简化)"
REVISE = _Any(
    rf"\b(check|modify|change|edit|revise|adjust|correct|fix|rephrase|shorten|shorter|reduce|different|another) {_SOME}{_REQUEST}",
    rf"\b(specify|choose|select) {_SOME}({_REQUEST}|model\b)",
    rf"{_REQUEST}.{{0,40}}(retry|try again) with\b",
    rf"{_REQUEST_ZH}.{{0,10}}{_CHANGE_ZH}|{_CHANGE_ZH}.{{0,10}}{_REQUEST_ZH}",
)
INVALID = _Any(
    r"\binvalid\b|unsupported|not support(ed)?\b|exceeds?\b|must be\b|参数.{0,6}(错误|无效|不合法)|不支持"
)


def is_about_account(words: str) -> bool:
    """Return whether words are about credit, the key or the route, which all jobs share.

    What is said of a prompt's content may name money and permissions, too: "contains the sensitive
    word 充值" is about this one job. An account that lacks credit or is locked is so whatever else is said.
    """
    is_sure = KEY.search(words) is not None and _OTHERS_DOOR.search(words) is None
    if is_sure or ROUTE.search(words) or _lacks_credit(words):
        return True
    is_of_content = is_moderation(words) and _CONTENT.search(words) is not None
    return not is_of_content and (says_locked(words) or says_no_credit(words))


def is_moderation(words: str) -> bool:
    """Return whether a content is refused, and not only the service that looks at it busy."""
    return MODERATION.search(words) is not None and _CHECK_BUSY.search(words) is None


def says_locked(words: str) -> bool:
    """Return whether the key or a permission is refused."""
    is_locked = KEY.search(words) is not None or _KEY_TOPIC.search(words) is not None
    return is_locked and _OTHERS_DOOR.search(words) is None


def says_no_credit(words: str) -> bool:
    """Return whether the account has nothing left, and not only for this minute."""
    if _lacks_credit(words):
        return True
    # "Too many at once; upgrade your plan" is advice, and "wallet: unknown field" is about a name.
    passing = (_PER_TIME, PARALLEL, THROTTLED, _FIELD)
    is_topic = _CREDIT_TOPIC.search(words) is not None
    return is_topic and not any(pattern.search(words) for pattern in passing)


def _lacks_credit(words: str) -> bool:
    if _PER_TIME.search(words) or _GEOMETRY.search(words):
        return False
    is_exceeded = _EXCEEDED.search(words) is not None and PARALLEL.search(words) is None
    return is_exceeded or CREDIT.search(words) is not None


def puts_off(words: str, status: int) -> bool:
    """Return whether nothing was done now, and may be later.

    In other languages than English and Chinese too few words are known that say what may have been done
    all the same (`UNSURE`): there it takes a *status* that refuses, too.
    """
    is_later = status >= 400 and _LATER.search(words) is not None
    return is_later or NOT_NOW.search(words) is not None

"""The table of `batch.provider.wire` as one test, and the answers of real gateways line by line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch.job import Failure, FailureKind
from batch.provider.answers import Ambiguous, Found, Refused, Task, TaskStatus, Unavailable
from batch.provider.fields import parse_retry_after
from batch.provider.links import as_sent
from batch.provider.wire import SUBMIT_PATH, read_query, read_submit, task_failure

CASES = Path(__file__).parents[1] / "data" / "wire" / "gateway-answers.jsonl"
NOW = 1_800_000_000.0

# In each shape a relay may say why it refuses.
SHAPES: dict[str, Callable[[str], Any]] = {
    "kling": lambda said: {"code": 4711, "message": said, "request_id": "r"},
    "comet": lambda said: {"error": {"message": said, "type": "comet_api_error", "code": ""}},
    "openai": lambda said: {"error": {"message": said, "type": "api_error"}},
    "relay": lambda said: {"code": "task_failed", "message": said, "data": None},
    "nested": lambda said: {"code": "x", "message": json.dumps({"code": "y", "message": said})},
    "flag": lambda said: {"success": False, "message": said},
    "word": lambda said: {"status": "error", "message": said},
    "ok": lambda said: {"ok": False, "reason": said},
    "errors": lambda said: {"errors": [{"message": said}], "data": None},
    "meta": lambda said: {"meta": {"code": "E17", "message": said}, "data": None},
    "plain": lambda said: {"error": said},
    "detail": lambda said: {"detail": said, "error": True},
    "list": lambda said: {"detail": [{"type": "value", "msg": said}], "error": True},
    "volcano": lambda said: {"ResponseMetadata": {"Error": {"Code": "X", "Message": said}}},
    "camel": lambda said: {"errorCode": "E17", "errorMessage": said},
    "vague": lambda said: {"message": "error", "error": {"message": said}},
}
# What it says → the verdict under HTTP
#                                             200          400          403          429        409, 500
TABLE: list[tuple[str, str, str, str, str, str]] = [
    ("You do not have enough credits", "account", "account", "account", "account", "ambiguous"),
    ("Exhausted balance. Top up", "account", "account", "account", "account", "ambiguous"),
    ("账户余额不足，请充值", "account", "account", "account", "account", "ambiguous"),
    ("Incorrect API key provided", "account", "account", "account", "account", "ambiguous"),
    ("无效的令牌", "account", "account", "account", "account", "ambiguous"),
    ("parallel task over limit", "saturated", "saturated", "saturated", "saturated", "ambiguous"),
    ("Concurrency limit reached", "saturated", "saturated", "saturated", "saturated", "ambiguous"),
    ("任务并发数已达上限", "saturated", "saturated", "saturated", "saturated", "ambiguous"),
    ("Too many requests", "throttled", "throttled", "throttled", "throttled", "ambiguous"),
    ("rate_limit_exceeded", "throttled", "throttled", "throttled", "throttled", "ambiguous"),
    ("quota: 3 per minute exceeded", "ambiguous", "invalid", "account", "throttled", "ambiguous"),
    ("请求过于频繁，请稍后再试", "throttled", "throttled", "throttled", "throttled", "ambiguous"),
    ("上游负载已饱和，请稍后再试", "throttled", "throttled", "throttled", "throttled", "ambiguous"),
    ("the request timed out", "ambiguous", "ambiguous", "ambiguous", "throttled", "ambiguous"),
    ("服务器内部错误", "ambiguous", "ambiguous", "ambiguous", "throttled", "ambiguous"),
    (
        "against our content policy",
        "moderation",
        "moderation",
        "moderation",
        "throttled",
        "ambiguous",
    ),
    ("considered high risk", "moderation", "moderation", "moderation", "throttled", "ambiguous"),
    ("提示词包含敏感内容", "moderation", "moderation", "moderation", "throttled", "ambiguous"),
    ("bad response of upstream", "ambiguous", "ambiguous", "account", "throttled", "ambiguous"),
    ("duration must be 5 or 10", "invalid", "invalid", "account", "throttled", "ambiguous"),
    ("the system is busy", "throttled", "throttled", "throttled", "throttled", "ambiguous"),
    ("系统维护中", "throttled", "throttled", "throttled", "throttled", "ambiguous"),
    ("words in no list", "ambiguous", "invalid", "account", "throttled", "ambiguous"),
]
STATUSES = (200, 400, 403, 429, 409)


def verdict(status: int, body: Any, *, resent: bool = False) -> str:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = read_submit(status, {}, raw, resent=resent, now=NOW)
    if isinstance(answer, Refused):
        return answer.failure.kind.value.removesuffix("_request")
    return type(answer).__name__.removesuffix("Refused").lower()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
@pytest.mark.parametrize("shape", SHAPES)
def test_refusal_means_the_same_in_every_shape(row: tuple[str, ...], shape: str) -> None:
    body = SHAPES[shape](row[0])
    found = [verdict(status, body) for status in STATUSES]
    assert found == list(row[1:])
    assert verdict(500, body) == verdict(503, body) == "ambiguous"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        *((said, "account") for said in ("No API key provided", "Token expired", "令牌已禁用")),
        *((said, "account") for said in ("You didn't provide an API key", "鉴权失败", "无权访问")),
        *((said, "account") for said in ("quota exceeded", "low balance", "Your plan has expired")),
        *(
            (said, "account")
            for said in ("The balance isn't sufficient", "积分不足", "预扣费额度失败")
        ),
        *(
            (said, "saturated")
            for said in ("Max running tasks exceeded", "resource pack concurrency")
        ),
        *(
            (said, "saturated")
            for said in ("5 tasks in progress, the maximum", "同时进行的任务已达上限")
        ),
        *(
            (said, "throttled")
            for said in ("requests sent too quickly", "resource_exhausted", "限流")
        ),
        *(
            (said, "throttled")
            for said in ("Please wait a moment", "no available channel", "系统忙碌")
        ),
        *(
            (said, "moderation")
            for said in ("prompt not pass audit", "DataInspectionFailed", "人脸")
        ),
        *(
            (said, "invalid")
            for said in ("prompt is too long", "extra fields not permitted", "参数错误")
        ),
        *((said, "account") for said in ("You need 35 more credits", "Please upgrade your plan")),
        *((said, "account") for said in ("Hard limit has been reached", "账户余额为负")),
        *((said, "account") for said in ("credits required: 20", "please add a payment method")),
        *((said, "saturated") for said in ("job slots exhausted", "Task queue limit exceeded")),
        *(
            (said, "saturated")
            for said in ("Only 3 tasks can be processed at once", "no free slots")
        ),
        *((said, "throttled") for said in ("Rate exceeded", "接口调用超限", "操作过于频繁")),
        *((said, "invalid") for said in ("no token at position 3", "time must be later than now")),
    ],
)
def test_words_of_many_gateways_are_understood(said: str, expected: str) -> None:
    assert verdict(400, SHAPES["comet"](said)) == expected


NO_CREDIT = """
余额不足 账户已欠费 账号欠费，请充值后再试 额度已用完 当前分组额度不足 令牌额度已用尽 预扣费额度失败 资源包余额不足 灵感值不足
可用点数不足 积分不够 金币不足 余额为零 账户余额已为负 可用额度为0 套餐已到期 会员已过期 账户已停服 账单未支付 请绑定支付方式
账户余额过低 超出额度限制 额度超限 已超出当前额度 超出配额 已达到消费上限 免费次数已用完 可用次数不足 今日次数已用完 算力点不足
餘額不足 帳戶餘額不足 額度已用盡 點數不足 欠費 請儲值 積分不足 资金不足 没有足够的积分 需要更多积分 代金券已过期 账户已逾期
需付费 购买套餐 请升级套餐 无可用额度 无剩余次数 残高が不足しています クレジットが足りません 크레딧이_부족합니다 잔액_부족
Saldo_insuficiente Créditos_insuficientes Solde_insuffisant Guthaben_reicht_nicht_aus Недостаточно_средств
"""
NOT_SO_FAST = """
请求过于频繁 请求太频繁，请稍后再试 请求频率过高 操作太快 请求次数过多 触发限流 限速中 频率限制 超出速率限制 每分钟请求次数超限
每分钟额度已用完 超出QPS限制 QPS超限 排队人数过多 服务器繁忙 当前分组上游负载已饱和 流量过大 访问量过大 当前使用人数较多 触发流控
請求過於頻繁 請求過多 系統繁忙 頻率限制 请稍等 提交过快 生成过于频繁 请慢一点 您操作得太快了 算力不足 次数超限
リクエストが多すぎます 요청이_너무_많습니다 Demasiadas_solicitudes Trop_de_requêtes Zu_viele_Anfragen
Слишком_много_запросов
"""
SLOTS_TAKEN = """
并发数超限 当前并发数过高 資源包並發數超限 資源包并发不足 超出並發限制 超过并发额度 任务数已达上限 当前排队任务过多 正在进行的任务过多
同时进行的任务数超过限制 任务队列已满
"""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        *((said, "account") for said in NO_CREDIT.split()),
        *((said, "throttled") for said in NOT_SO_FAST.split()),
        *((said, "saturated") for said in SLOTS_TAKEN.split()),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_words_of_many_languages_are_understood(status: int, said: str, expected: str) -> None:
    assert verdict(status, SHAPES["comet"](said.replace("_", " "))) == expected


PERHAPS_MADE = """
任务数过多，处理超时 并发请求超时 concurrency:_the_request_timed_out 任务太多，系统错误，请重试
系統錯誤，請稍後再試 請求逾時，請稍後再試 伺服器錯誤，請稍後再試 處理超時 リクエストがタイムアウトしました。しばらくしてから再試行してください
内部エラーが発生しました。しばらくしてからお試しください 混雑のためタイムアウトしました 내부_서버_오류입니다._잠시_후_다시_시도해_주세요
시간이_초과되었습니다._나중에_다시_시도하세요 Tiempo_de_espera_agotado._Inténtelo_más_tarde Error_interno,_inténtelo_más_tarde
Interner_Serverfehler,_bitte_später_erneut Zeitüberschreitung,_bitte_später_erneut Erreur_interne,_réessayez_plus_tard
Délai_d'attente_dépassé,_réessayez_plus_tard Erro_interno_do_servidor._Tente_mais_tarde Tempo_limite_excedido,_tente_mais_tarde
Errore_interno,_riprova_più_tardi Внутренняя_ошибка_сервера,_попробуйте_позже Время_ожидания_истекло,_попробуйте_позже
"""


@pytest.mark.parametrize("said", PERHAPS_MADE.split())
@pytest.mark.parametrize("status", [200, 400])
def test_what_may_have_been_made_is_not_put_off_in_any_language(status: int, said: str) -> None:
    """What is put off is sent again without a look."""
    assert verdict(status, SHAPES["comet"](said.replace("_", " "))) == "ambiguous"


@pytest.mark.parametrize(
    "said",
    [
        "しばらくしてから再試行してください",
        "Richiesta scaduta, riprova più tardi",
        "나중에 다시 시도",
    ],
)
@pytest.mark.parametrize(("status", "expected"), [(200, "ambiguous"), (400, "throttled")])
def test_later_in_other_languages_is_a_refusal_only_by_the_status(
    said: str, status: int, expected: str
) -> None:
    assert verdict(status, SHAPES["comet"](said)) == expected


@pytest.mark.parametrize(
    "said", ["提示詞包含敏感內容", "违反内容安全规范", "內容審核未通過", "涉嫌侵權"]
)
def test_moderation_in_traditional_characters_is_moderation(said: str) -> None:
    assert verdict(400, SHAPES["comet"](said)) == "moderation"
    failed = Task("8", TaskStatus.FAILED, message=said)
    assert task_failure(failed).kind is FailureKind.MODERATION


@pytest.mark.parametrize("status", [401, 402, 403, 404, 408, 409, 422, 425, 429, 499, 500, 503])
@pytest.mark.parametrize("key", ["code", "status", "statusCode", "error_code"])
@pytest.mark.parametrize("form", [int, str])
def test_status_in_the_body_counts(status: int, key: str, form: type) -> None:
    body = {key: form(status), "msg": "words in no list"}
    expected = verdict(status, SHAPES["kling"]("words in no list"))
    assert verdict(200, body) == verdict(400, body) == expected


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        # A task is a task, whatever is said around it.
        (429, {"code": 1303, "message": "no credit", "data": {"task_id": "8"}}, "created"),
        (200, {"code": 200, "msg": "success", "data": {"taskId": "8"}}, "created"),
        # A code outranks words, Kling's number every other code, and a type is one where it is known.
        (400, {"code": 1200, "message": "too many requests"}, "invalid"),
        (429, {"error": {"message": "负载已饱和", "code": "insufficient_user_quota"}}, "account"),
        (429, {"error": {"message": "slow down", "type": "insufficient_quota"}}, "account"),
        (400, {"code": 429, "message": {"code": 1301, "message": "x"}}, "moderation"),
        (499, {"code": 1302, "message": "x"}, "throttled"),
        # A status outranks words.
        (401, {"error": "too many requests"}, "account"),
        (402, {"error": "content policy"}, "account"),
        (408, {"error": "not enough credits"}, "ambiguous"),
        # The body's status counts only where HTTP says nothing in particular.
        (401, {"code": 429, "msg": "x"}, "account"),
        (500, {"code": 429, "msg": "x"}, "ambiguous"),
        (429, {"code": 500, "msg": "x"}, "throttled"),
        # A code that gateways write on any refusal gives way to words, and is never ambiguous.
        (400, {"code": "invalid_request", "message": "words in no list"}, "invalid"),
        (400, {"code": "invalid_request", "message": "upstream timed out"}, "invalid"),
        (400, {"code": "invalid_request", "message": "too many requests"}, "throttled"),
        (400, {"code": "invalid_request", "message": "unsafe content"}, "moderation"),
        (500, {"code": "invalid_request", "message": "your credit balance is too low"}, "account"),
        (500, {"code": "invalid_request", "message": "too many requests"}, "invalid"),
        # No error in the body: words prove nothing.
        (
            200,
            {"code": 0, "message": "SUCCEED", "data": {"note": "too many requests"}},
            "ambiguous",
        ),
        (200, {"code": 200, "message": "too many requests"}, "ambiguous"),
        # Words of an id that is taken.
        (400, {"code": 422, "message": "external_task_id 已存在"}, "exists"),
        (200, {"success": False, "message": "externalTaskId already exists"}, "exists"),
    ],
)
def test_authority_goes_from_task_to_code_to_words(
    status: int, body: dict[str, Any], expected: str
) -> None:
    assert verdict(status, body) == expected


@pytest.mark.parametrize(
    ("status", "location", "expected"),
    [
        *((status, f"{SUBMIT_PATH}/81234567?a=b", "Ambiguous") for status in (301, 302, 303)),
        (303, "https://relay.example/tasks/81234567", "Ambiguous"),
        (307, f"{SUBMIT_PATH}/81234567", "AccountRefused"),
        *(
            (status, f"https://relay.example{SUBMIT_PATH}/", "AccountRefused")
            for status in (301, 303)
        ),
        *((status, "/login", "AccountRefused") for status in (301, 302, 303, 307, 308)),
        (303, "", "AccountRefused"),
        (302, "http://[", "AccountRefused"),
    ],
)
def test_redirect_to_a_new_task_does_not_say_that_none_was_made(
    status: int, location: str, expected: str
) -> None:
    answer = read_submit(status, {"Location": location}, b"", resent=False, now=NOW)
    assert type(answer).__name__ == expected


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"<!doctype html>", True),
        (404, b"not found", True),
        (405, b"", True),
        (404, b'{"error":"the request is being processed"}', False),
        (502, b'{"error":"x"}', False),
        (200, b"", False),
    ],
)
def test_page_is_told_from_an_api(status: int, body: bytes, *, expected: bool) -> None:
    answer = read_submit(status, {}, body, resent=False, now=NOW)
    assert isinstance(answer, Ambiguous)
    assert answer.is_page is expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [(401, "AccountRefused"), (404, "NotFound"), (429, "Unavailable"), (500, "Unavailable")],
)
def test_query_reads_the_status_in_the_body(code: int, expected: str) -> None:
    answer = read_query(200, {}, json.dumps({"code": code, "msg": "no"}).encode(), now=NOW)
    assert type(answer).__name__ == expected
    assert not isinstance(answer, Unavailable) or (
        (answer.failure.kind is FailureKind.RATE_LIMITED) == (code == 429)
    )


# -- failed tasks ----------------------------------------------------------------------------


def failure_of(reason: str) -> Failure:
    return task_failure(Task("8", TaskStatus.FAILED, message=reason))


@pytest.mark.parametrize(
    "reason",
    [
        *("", "generation error", "Generation failed.", "internal error", "Internal Server Error"),
        *("The server is busy, please try again later.", "Task execution timeout", "TIMEOUT"),
        "The model is currently overloaded with other requests. Sorry about that!",
        *("Failed to generate the video, please retry", "Unknown error (code: 5000)", "failed"),
        *(
            "An unexpected error occurred",
            "CUDA out of memory",
            "502 Bad Gateway",
            "N/A",
            "排队超时",
        ),
        *("service_unavailable", "生成失败", "系统繁忙，请稍后再试", "视频生成失败，请重试"),
        *("服务器内部错误", "任务超时", "当前分组上游负载已饱和，请稍后再试", "网络异常"),
        *("内部错误(5000)", "任务超时600s", "Generation failed (id=7f3a, E5)"),
    ],
)
def test_reason_known_to_pass_is_retried(reason: str) -> None:
    failure = failure_of(reason)
    assert (failure.kind, failure.is_unexplained) == (FailureKind.GENERATION, False)
    assert reason in failure.message
    assert "often passes" in failure.message


@pytest.mark.parametrize(
    "reason",
    [
        *("The subject is a landmark", "Generation failed: shows a landmark", "E-4711", "4711"),
        *("task failed because of the prompt", "Your request cannot be made here", "包含地标建筑"),
        *("生成失败：包含地标建筑", "no", "The server does not like this", "видео"),
        *("生成失败 命中黑名单404", "generation failed: landmark#3", "failed (landmarks:2)"),
    ],
)
def test_reason_in_no_list_is_unexplained(reason: str) -> None:
    failure = failure_of(reason)
    assert (failure.kind, failure.is_unexplained) == (FailureKind.GENERATION, True)
    assert f'"{reason}"' in failure.message
    assert "not known to pass" in failure.message


@pytest.mark.parametrize(
    "reason",
    [
        *("Failure to pass the risk control system", "Content Exists Risk", "RISK_DETECTION"),
        *("InputTextSensitiveContentDetected", "SAFETY.OUTPUT.VIDEO", "content_filter"),
        *("Generation failed: violates our usage policies", "it may infringe a trademark"),
        *("Celebrity likeness detected", "blocked by Responsible AI", "Prompt was rejected"),
        *("内容不合规", "提示词涉及政治敏感", "未通过风控", "可能侵犯他人版权", "涉嫌色情低俗"),
        *("generation failed 涉黄#3", "Generation failed: nudity(0.97)", "任务失败 敏感词v2"),
    ],
)
def test_moderation_is_known_in_many_words(reason: str) -> None:
    failure = failure_of(reason)
    assert (failure.kind, failure.is_unexplained) == (FailureKind.MODERATION, False)
    assert f'moderation refused it: "{reason}"' in failure.message


# -- answers of real gateways ----------------------------------------------------------------


def cases() -> list[Any]:
    lines = CASES.read_text(encoding="utf-8").splitlines()
    read = [json.loads(line) for line in lines]
    # The base URL is what a user writes, and belongs to the settings.
    ours = [case for case in read if case["call"] != "check_base_url"]
    return [pytest.param(case, id=f"{case['kind']}-{n}") for n, case in enumerate(ours)]


@pytest.mark.parametrize("case", cases())
def test_answer_of_a_real_gateway(case: dict[str, Any]) -> None:
    want = case["want"]
    match case["call"]:
        case "submit":
            raw = json.dumps(case["body"]).encode()
            answer = read_submit(case["status"], case["headers"], raw, resent=False, now=NOW)
            assert type(answer).__name__ == want
        case "query":
            task = found(case)
            assert (task.status, task.url) == (want["status"], want["url"])
        case "query+task_failure":
            assert task_failure(found(case)).kind == want
        case "parse_retry_after":
            assert parse_retry_after(case["value"], case["now"]) == want
        case "request target sent for":
            assert as_sent(case["value"]) == f"https://cdn.example{want}"
        case other:
            pytest.fail(f"nothing is known of {other}")


def found(case: dict[str, Any]) -> Task:
    raw = json.dumps(case["body"]).encode()
    answer = read_query(case["status"], case["headers"], raw, now=NOW)
    assert isinstance(answer, Found)
    return answer.task

//! The table of every path of both listeners. A new route needs an entry here; a test compares the
//! table with the routers.

use schemars::SchemaGenerator;

use super::operation::{
    Answer::{Empty as NoContent, Json, Other},
    Listener::{Api, Feed, Health, Public},
    Operation, Parameter,
    Request::{Empty, Json as JsonBody, QueryAsJson},
};
use crate::ops::view;

const fn optional(name: &'static str, meaning: &'static str) -> Parameter {
    Parameter { name, is_required: false, meaning }
}

const fn required(name: &'static str, meaning: &'static str) -> Parameter {
    Parameter { name, is_required: true, meaning }
}

const LIMIT: Parameter = optional("limit", "Number of entries, from 1 to 500 [default: 50].");
const BEFORE: Parameter = optional("before", "The `next` of the page before this one.");
const DESTINATION: Parameter =
    optional("destination", "Name of a destination; without it, every destination.");
const MARKS_READ: Parameter = optional(
    "Content-Type",
    "`application/json` marks the shown entries as read; without it they stay unread.",
);

const BAD_REQUEST: (u16, &str) = (400, "A parameter is unknown or not valid.");
const TOKEN: (u16, &str) = (401, "The `ops_token` is missing or wrong.");
const HOST: (u16, &str) = (403, "No `ops_token` is configured, and `Host` is not loopback.");
const NO_API: (u16, &str) =
    (404, "No `ops_token` is configured, and the listener's address is not loopback.");
const UNKNOWN: (u16, &str) = (404, "The id or name is not known; or the API is off.");
const NOT_JSON: (u16, &str) =
    (415, "No `ops_token` is configured, and the request is not `application/json`.");
const STORE_FAILED: (u16, &str) = (500, "The store failed; the relay's log says why.");
const STORE_BUSY: (u16, &str) = (503, "The store is busy, full or closed; ask again later.");

const STORE_READ: &[(u16, &str)] = &[BAD_REQUEST, TOKEN, HOST, NO_API, STORE_FAILED, STORE_BUSY];
const ONE_READ: &[(u16, &str)] = &[BAD_REQUEST, TOKEN, HOST, UNKNOWN, STORE_FAILED, STORE_BUSY];
const STORE_WRITE: &[(u16, &str)] =
    &[BAD_REQUEST, TOKEN, HOST, UNKNOWN, NOT_JSON, STORE_FAILED, STORE_BUSY];
const ONE_WRITE: &[(u16, &str)] = &[
    BAD_REQUEST,
    TOKEN,
    HOST,
    UNKNOWN,
    (409, "The state of what is named does not allow the action; `detail` says why."),
    NOT_JSON,
    STORE_FAILED,
    STORE_BUSY,
];

const EVENT_REFUSALS: &[(u16, &str)] = &[
    (401, "A signature or timestamp header is missing, malformed, wrong or over 300 s away."),
    (404, "The app is not configured, or the short path is not served."),
    (405, "The method is not POST."),
    (408, "The body did not arrive in time."),
    (413, "The body has more than 4 MiB."),
    (431, "The head has more than 64 headers or 32 KiB."),
    (503, "The event could not be stored; Slack sends it again."),
];
const EVENT_HEADERS: &[Parameter] = &[
    required("X-Slack-Request-Timestamp", "Seconds since the epoch, at most 300 s away."),
    required("X-Slack-Signature", "`v0=` and the HMAC-SHA256 of `v0:TIMESTAMP:BODY` in hex."),
];
const EVENT: Operation = Operation {
    method: "POST",
    path: "/slack/events",
    listener: Public,
    summary: "Receives an event of the app whose signing secret verifies",
    query: &[],
    headers: EVENT_HEADERS,
    request: JsonBody("An event as Slack's Events API sends it."),
    answer: Other(
        "application/json",
        "Stored, or not wanted. `url_verification` is answered with its `challenge`, everything \
         else with an empty body.",
    ),
    refusals: EVENT_REFUSALS,
};

const GET: Operation = Operation {
    method: "GET",
    path: "",
    listener: Api,
    summary: "",
    query: &[],
    headers: &[],
    request: Empty,
    answer: NoContent,
    refusals: STORE_READ,
};
const POST: Operation = Operation { method: "POST", refusals: ONE_WRITE, ..GET };

/// Every path of both listeners.
pub(super) const OPERATIONS: &[Operation] = &[
    EVENT,
    Operation { path: "/slack/events/{app}", summary: "Receives an event of one app", ..EVENT },
    Operation {
        path: "/healthz",
        listener: Health,
        summary: "On the public listener: 200 until the listener closes. On the ops listener: \
                  the same as `/readyz`",
        answer: Other("text/plain", "Ready"),
        refusals: &[(503, "Not ready, with the reason (ops listener only).")],
        ..GET
    },
    Operation {
        path: "/livez",
        listener: Health,
        summary: "Tells whether the internal loops run",
        answer: Other("text/plain", "Alive"),
        refusals: &[(503, "A loop has not run for 30 s.")],
        ..GET
    },
    Operation {
        path: "/readyz",
        listener: Health,
        summary: "Tells whether the store takes a durable write; the answer is kept for 5 s",
        answer: Other("text/plain", "Ready"),
        refusals: &[(503, "Not ready or draining, with the reason.")],
        ..GET
    },
    Operation {
        path: "/metrics",
        listener: Health,
        summary: "Returns every metric in Prometheus' text format",
        answer: Other("text/plain; version=0.0.4", "Metrics, see metrics.md"),
        refusals: &[],
        ..GET
    },
    Operation {
        path: "/api/v1/openapi.json",
        summary: "Returns the OpenAPI document that this page is made from",
        answer: Other("application/json", "The document"),
        refusals: &[BAD_REQUEST, TOKEN, HOST, NO_API],
        ..GET
    },
    Operation {
        path: "/api/v1/status",
        summary: "Returns the state of the relay, its apps and its destinations",
        answer: Json(SchemaGenerator::subschema_for::<view::Status>),
        refusals: &[BAD_REQUEST, TOKEN, HOST, NO_API],
        ..GET
    },
    Operation {
        path: "/api/v1/alerts",
        summary: "Lists alerts, newest first",
        query: &[
            optional(
                "state",
                "State of a delivery: pending, refused, leased, dead, paused, orphaned, \
                 delivered or cancelled; or `unrouted`.",
            ),
            optional("severity", "informative, low, medium, high or critical."),
            optional("q", "Text to find in category, script, host and title."),
            BEFORE,
            LIMIT,
        ],
        answer: Json(SchemaGenerator::subschema_for::<view::Page>),
        ..GET
    },
    Operation {
        path: "/api/v1/alerts/{id}",
        summary: "Returns an alert with its message, deliveries and attempts",
        answer: Json(SchemaGenerator::subschema_for::<view::Detail>),
        refusals: ONE_READ,
        ..GET
    },
    Operation {
        path: "/api/v1/alerts/{id}/retry",
        summary: "Makes unfinished, dead and cancelled deliveries of an alert due now",
        query: &[DESTINATION],
        answer: Json(SchemaGenerator::subschema_for::<view::Changed>),
        ..POST
    },
    Operation {
        path: "/api/v1/alerts/{id}/cancel",
        summary: "Cancels the unfinished and dead deliveries of an alert",
        query: &[DESTINATION],
        answer: Json(SchemaGenerator::subschema_for::<view::Changed>),
        ..POST
    },
    Operation {
        path: "/api/v1/alerts/retry",
        summary: "Retries every delivery in a state, or routes unrouted alerts again",
        query: &[required("state", "dead, cancelled, pending, refused or unrouted."), DESTINATION],
        answer: Json(SchemaGenerator::subschema_for::<view::Changed>),
        refusals: STORE_WRITE,
        ..POST
    },
    Operation {
        path: "/api/v1/alerts/cancel",
        summary: "Cancels every delivery in a state",
        query: &[required("state", "dead, pending or refused."), DESTINATION],
        answer: Json(SchemaGenerator::subschema_for::<view::Changed>),
        refusals: STORE_WRITE,
        ..POST
    },
    Operation {
        path: "/api/v1/near-misses",
        summary: "Lists messages that resemble an incident and are not alerts, newest first",
        query: &[BEFORE, LIMIT],
        headers: &[MARKS_READ],
        answer: Json(SchemaGenerator::subschema_for::<view::NearMisses>),
        ..GET
    },
    Operation {
        path: "/api/v1/near-misses/{id}",
        summary: "Returns a near miss with its message",
        headers: &[MARKS_READ],
        answer: Json(SchemaGenerator::subschema_for::<view::NearMissDetail>),
        refusals: ONE_READ,
        ..GET
    },
    Operation {
        path: "/api/v1/near-misses/{id}/adopt",
        summary: "Makes a near miss an alert",
        answer: Json(SchemaGenerator::subschema_for::<view::Adopted>),
        ..POST
    },
    Operation {
        path: "/api/v1/quarantine",
        summary: "Lists authentic bodies that could not be parsed, newest first",
        headers: &[MARKS_READ],
        answer: Json(SchemaGenerator::subschema_for::<view::Quarantine>),
        ..GET
    },
    Operation {
        path: "/api/v1/quarantine/{id}",
        summary: "Returns a quarantined body whole",
        headers: &[MARKS_READ],
        answer: Json(SchemaGenerator::subschema_for::<view::Quarantined>),
        refusals: ONE_READ,
        ..GET
    },
    Operation {
        path: "/api/v1/backfill",
        summary: "Reads history now, and answers when all of it has been read",
        query: &[
            optional(
                "since",
                "Beginning: a duration before now such as `24h`, or a time. Required unless \
                 `mark_known` is set.",
            ),
            optional("until", "End, in the same forms [default: now]."),
            optional("channel", "Id or name of a channel; without it, every channel."),
            optional("app", "Name of an app; without it, every app."),
            optional(
                "mark_known",
                "`true` notes the incidents as known and delivers none; needs `until`.",
            ),
        ],
        request: QueryAsJson,
        answer: Json(SchemaGenerator::subschema_for::<view::BackfillReport>),
        refusals: &[
            BAD_REQUEST,
            TOKEN,
            HOST,
            (404, "No app reads such a channel; or the API is off."),
            NOT_JSON,
            (502, "Slack or the store failed; what was read before is stored."),
            (503, "64 requests that take long are under way; ask again later."),
        ],
        ..POST
    },
    Operation {
        path: "/api/v1/destinations/{name}/pause",
        summary: "Pauses a destination; alerts for it wait",
        query: &[
            optional("for", "Duration such as `2h`, at most 366 days; without it, no end."),
            optional("reason", "Reason, at most 200 characters."),
        ],
        request: QueryAsJson,
        answer: Json(SchemaGenerator::subschema_for::<view::PauseState>),
        refusals: STORE_WRITE,
        ..POST
    },
    Operation {
        path: "/api/v1/destinations/{name}/resume",
        summary: "Ends the pause of a destination",
        answer: Json(SchemaGenerator::subschema_for::<view::PauseState>),
        refusals: STORE_WRITE,
        ..POST
    },
    Operation {
        path: "/api/v1/destinations/{name}/test",
        summary: "Sends a test alert to a destination; the alert is not stored",
        query: &[optional(
            "severity",
            "informative, low, medium, high or critical [default: high].",
        )],
        answer: Json(SchemaGenerator::subschema_for::<view::TestReport>),
        ..POST
    },
    Operation {
        path: "/api/v1/feed",
        listener: Feed,
        summary: "Marks items up to `after` as delivered and returns those that follow",
        query: &[
            optional(
                "after",
                "Number of the last item taken; 0 for all that is kept [default: 0].",
            ),
            optional("limit", "Number of items, from 1 to 500 [default: 100]."),
            optional("wait", "Longest wait for an item, from `0s` to `50s`."),
            optional("destination", "Name of the feed, if the token opens several."),
        ],
        answer: Json(SchemaGenerator::subschema_for::<view::FeedPage>),
        refusals: &[
            BAD_REQUEST,
            (401, "The `feed_token` is missing or wrong."),
            (404, "The token does not open the named feed, or no feed is configured."),
            (409, "No item has a number beyond `after`; nothing was marked as delivered."),
            STORE_FAILED,
            (503, "The store is busy, 64 readers wait already, or the configuration has changed."),
        ],
        ..GET
    },
];

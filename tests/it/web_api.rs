//! Slack's Web API as the relay calls it: what is never shown.

use slack_soar_relay::{
    clock::Clock,
    http_client,
    ids::{ChannelId, MessageTs},
    logging::chain,
    metrics::Metrics,
    secret::Secret,
    slack::web_api::{HistoryQuery, WebApi, WebApiSettings},
};

use crate::harness::{
    BEGIN,
    fake_slack::{FakeSlack, TEAM, TOKEN, Trouble},
    gateway::{ConnectProxy, TlsFront},
};

const HISTORY: &str = "conversations.history";

fn api(url: &str) -> WebApi {
    api_by(url, http_client::Settings::default())
}

fn api_by(url: &str, client: http_client::Settings) -> WebApi {
    let token = Some(Secret::fixed("SLACK_BOT_TOKEN", TOKEN).unwrap());
    let settings = WebApiSettings { url: url.parse().unwrap(), token, team: None, client };
    WebApi::new(settings, Clock::manual(BEGIN), Metrics::new()).unwrap()
}

fn query() -> HistoryQuery {
    HistoryQuery {
        channel: ChannelId::new("C0123456789"),
        oldest: MessageTs::from_micros(0),
        latest: MessageTs::from_micros(1),
        cursor: None,
        limit: 200,
    }
}

#[tokio::test]
async fn no_error_shows_the_token_whatever_slack_answers() {
    let slack = FakeSlack::new(Clock::manual(BEGIN)).await;
    let troubles = [
        Trouble::Error(TOKEN),
        Trouble::Error("token_revoked"),
        Trouble::Error("missing_scope"),
        Trouble::Error("invalid_cursor"),
        Trouble::NotJson,
        Trouble::Status(500),
        Trouble::TooMany(Some(1)),
    ];
    let api = api(&slack.api_url());
    let mut shown = vec![format!("{api:?}")];
    for (after, trouble) in troubles.into_iter().enumerate() {
        slack.trouble(HISTORY, after, trouble);
    }
    for _ in 0..7 {
        let error = api.history(&query()).await.unwrap_err();
        shown.push(format!("{error:?} {}", chain(&error)));
    }
    let nobody = self::api("http://127.0.0.1:1/api");
    let error = nobody.auth_test().await.unwrap_err();
    shown.push(format!("{error:?} {}", chain(&error)));
    for text in shown {
        assert!(!text.contains("hunter2") && !text.contains("127.0.0.1:1/"), "{text}");
    }
}

#[tokio::test]
async fn who_we_are_comes_with_scopes_and_slacks_time() {
    let slack = FakeSlack::new(Clock::manual(BEGIN)).await;
    slack.state().skew_seconds = 600;
    let api = api(&slack.api_url());
    assert_eq!(api.slack_now(), None);
    let identity = api.auth_test().await.unwrap();
    assert_eq!(identity.user_id, "U0RELAYBOT1");
    assert_eq!(identity.scopes.len(), 4);
    assert_eq!(api.slack_now().unwrap().since(BEGIN).as_secs(), 600);
}

#[tokio::test]
async fn an_error_on_the_way_to_slack_names_the_key_that_mends_it() {
    let slack = FakeSlack::new(Clock::manual(BEGIN)).await;
    let behind = slack.api_url()["http://".len()..].trim_end_matches("/api").parse().unwrap();
    let front = TlsFront::new("slack.example", behind).await;
    let proxy = ConnectProxy::new().await;
    let url = format!("https://slack.example:{}/api", front.port());
    let by = |proxy: String| http_client::Settings { proxy: Some(proxy), ..Default::default() };
    let untrusted = api_by(&url, by(proxy.url())).auth_test().await.unwrap_err();
    assert!(chain(&untrusted).contains("`slack.ca_file`"), "{}", chain(&untrusted));
    let gone = api_by(&url, by("http://relay:hunter2@127.0.0.1:1".to_owned()));
    let gone = chain(&gone.auth_test().await.unwrap_err());
    assert!(gone.contains("`slack.proxy`") && !gone.contains("hunter2"), "{gone}");
}

#[tokio::test]
async fn an_organisation_wide_token_names_its_team_where_slack_wants_it() {
    let slack = FakeSlack::new(Clock::manual(BEGIN)).await;
    slack.state().org_wide = true;
    let error = api(&slack.api_url()).channels(None).await.unwrap_err();
    assert_eq!((error.label(), error.code()), ("configuration", "missing_argument"));
    let with = |team: &str| {
        let token = Some(Secret::fixed("SLACK_BOT_TOKEN", TOKEN).unwrap());
        let url = slack.api_url().parse().unwrap();
        let client = http_client::Settings::default();
        let settings = WebApiSettings { url, token, team: Some(team.to_owned()), client };
        WebApi::new(settings, Clock::manual(BEGIN), Metrics::new()).unwrap()
    };
    assert_eq!(with(TEAM).channels(None).await.unwrap().channels.len(), 1);
    let error = with("T0WRONG").channels(None).await.unwrap_err();
    assert!(error.cure().contains("`team`"), "{error}");
}

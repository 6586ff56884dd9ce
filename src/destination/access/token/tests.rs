use std::sync::atomic::{AtomicU32, Ordering};

use tokio::task::JoinSet;

use super::*;
use crate::{
    destination::transport::receiver::{Behave, Receiver, answer, ok},
    http_client,
};

struct Tokens {
    receiver: Receiver,
    source: TokenSource,
    cache: TokenCache,
    client: Client,
    clock: Clock,
}

impl Tokens {
    /// Gives `token-1`, `token-2` and so on, each with these keys beside it.
    fn with(beside: &'static str) -> Self {
        let number = AtomicU32::new(0);
        Self::answering(move || {
            let number = number.fetch_add(1, Ordering::Relaxed) + 1;
            ok(&format!("{{\"access_token\": \"token-{number}\"{beside}}}"))
        })
    }

    fn answering(answer: impl Fn() -> String + Send + 'static) -> Self {
        let receiver = Receiver::new(move |_asked| Behave::Answer(answer()));
        let url = format!("http://{}/token", receiver.address);
        let source = TokenSource::oauth2(&url, "id".into(), "s3cret".into(), "all".into());
        Self {
            receiver,
            source: source.unwrap_or_else(|error| panic!("{error}")),
            cache: TokenCache::default(),
            client: http_client::build(&http_client::Settings::default()).unwrap(),
            clock: Clock::manual(Timestamp::from_seconds(1_600_689_950)),
        }
    }

    async fn get(&self) -> Result<Arc<str>, DeliveryError> {
        let url = "http://127.0.0.1/".parse().unwrap();
        let redactor = Redactor::new(&url, "http://127.0.0.1/", &["s3cret"]);
        self.cache.get(&self.source, &self.client, &self.clock, &redactor).await
    }

    async fn gets(&self, expected: &str) {
        assert_eq!(&*self.get().await.unwrap(), expected);
    }

    /// Fifty at once; all are given the same.
    async fn fifty_get(self: &Arc<Self>, expected: &str) {
        let mut fifty = JoinSet::new();
        for _ in 0..50 {
            let tokens = Arc::clone(self);
            fifty.spawn(async move { tokens.get().await.unwrap() });
        }
        for given in fifty.join_all().await {
            assert_eq!(&*given, expected);
        }
    }

    fn asked(&self) -> usize {
        self.receiver.got().len()
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

#[tokio::test]
async fn a_token_is_renewed_a_minute_before_it_ends() {
    let tokens = Tokens::with(", \"expires_in\": 3600");
    tokens.gets("token-1").await;
    tokens.pass(3539);
    tokens.gets("token-1").await;
    tokens.pass(1);
    tokens.gets("token-2").await;
    assert_eq!(tokens.asked(), 2);
}

#[tokio::test]
async fn many_at_once_ask_for_one_token() {
    let tokens = Arc::new(Tokens::with(", \"expires_in\": 3600"));
    tokens.fifty_get("token-1").await;
    assert_eq!(tokens.asked(), 1);
    tokens.pass(3600);
    tokens.fifty_get("token-2").await;
    assert_eq!(tokens.asked(), 2);
}

#[tokio::test]
async fn many_whose_token_is_refused_ask_for_one_new_one() {
    let tokens = Tokens::with(", \"expires_in\": 3600");
    tokens.gets("token-1").await;
    for _each_of_them in 0..50 {
        tokens.cache.forget("token-1").await;
        tokens.gets("token-2").await;
    }
    assert_eq!(tokens.asked(), 2);
}

#[tokio::test]
async fn a_short_life_is_used_for_most_of_it_and_an_unknown_one_for_minutes() {
    for (beside, lasts) in [
        (", \"expires_in\": 40", 30),
        (", \"expires_in\": \"3600\"", 3540),
        ("", 240),
        (", \"expires_in\": null", 240),
        (", \"expires_in\": -1", 240),
    ] {
        let tokens = Tokens::with(beside);
        tokens.gets("token-1").await;
        tokens.pass(lasts - 1);
        tokens.gets("token-1").await;
        tokens.pass(1);
        tokens.gets("token-2").await;
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_asked_for_again_and_not_shown() {
    let text = "{\"access_token\": \"t0ken-of-theirs\", \"access_token\": 7}";
    let error = Tokens::answering(|| ok(text)).get().await.unwrap_err();
    assert_eq!(error.label(), "destination_fault");
    assert!(!format!("{error:?}").contains("t0ken"), "{error:?}");
}

#[tokio::test]
async fn refused_credentials_are_told_from_a_server_that_fails() {
    for (status, label) in [
        ("400 Bad Request", "auth"),
        ("401 Unauthorized", "auth"),
        ("500 Oops", "destination_fault"),
        ("302 Found", "destination_fault"),
    ] {
        let tokens = Tokens::answering(move || answer(status, "", "{\"error\": \"x s3cret\"}"));
        let error = tokens.get().await.unwrap_err();
        assert_eq!(error.label(), label, "{status}");
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }
}

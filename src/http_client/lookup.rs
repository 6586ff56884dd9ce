//! Looks up names without ever letting one name wait for another.
//!
//! The system's resolver answers, so that `/etc/hosts`, search domains and the machine's other
//! settings apply. The resolver blocks, for half a minute and more when a server does not answer,
//! so each look-up has a thread of its own, and each name at most a few threads: a name that is
//! never answered costs only the callers that wait for that name.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{Arc, LazyLock, Mutex, PoisonError},
    thread,
    time::Duration,
};

use tokio::{
    sync::{Semaphore, oneshot},
    time::timeout,
};

/// Most look-ups of one name at once. More than one, so that the first look-up after a server has
/// come back does not wait for those that were never answered.
const AT_ONCE: usize = 4;

/// Longest wait for an answer; the look-up itself ends when the system gives up.
const LIMIT: Duration = Duration::from_secs(5);

/// Stack of a look-up's thread; the resolver of glibc needs some 70 KB.
const STACK_BYTES: usize = 512 * 1024;

/// Returns the addresses of a host.
///
/// # Errors
/// Returns the error of the system's resolver, or [`io::ErrorKind::TimedOut`].
pub(super) async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    static NAMES: LazyLock<Names> = LazyLock::new(|| Names::new(LIMIT));
    let ask = |host: &str, port| (host, port).to_socket_addrs().map(Iterator::collect);
    NAMES.look_up(host, port, ask).await
}

/// Names that are being looked up.
#[derive(Debug)]
struct Names {
    places: Mutex<HashMap<String, Arc<Semaphore>>>,
    limit: Duration,
}

impl Names {
    fn new(limit: Duration) -> Self {
        Self { places: Mutex::default(), limit }
    }

    async fn look_up<F>(&self, host: &str, port: u16, ask: F) -> io::Result<Vec<SocketAddr>>
    where
        F: FnOnce(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + 'static,
    {
        // An IPv6 address comes in brackets from a URL.
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let found = timeout(self.limit, self.ask(host.to_owned(), port, ask)).await;
        found.unwrap_or_else(|_elapsed| {
            let seconds = self.limit.as_secs();
            let text = format!("the name was not resolved within {seconds} s");
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }

    async fn ask<F>(&self, host: String, port: u16, ask: F) -> io::Result<Vec<SocketAddr>>
    where
        F: FnOnce(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + 'static,
    {
        let place = self.place(&host).acquire_owned().await.map_err(io::Error::other)?;
        let (reply, answer) = oneshot::channel();
        thread::Builder::new().name("look-up".to_owned()).stack_size(STACK_BYTES).spawn(
            move || {
                let found = ask(&host, port);
                drop(place);
                // Whoever asked may have stopped waiting.
                drop(reply.send(found));
            },
        )?;
        answer.await.map_err(io::Error::other)?
    }

    fn place(&self, host: &str) -> Arc<Semaphore> {
        let mut names = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        names.retain(|_, places| places.available_permits() < AT_ONCE);
        let places =
            names.entry(host.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE)));
        Arc::clone(places)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use super::*;

    const ANSWER: [u8; 4] = [192, 0, 2, 1];

    #[tokio::test]
    async fn an_address_is_not_looked_up() {
        let never = |_: &str, _| -> io::Result<Vec<SocketAddr>> { unreachable!() };
        for (host, address) in [("192.0.2.7", "192.0.2.7:80"), ("[::1]", "[::1]:80")] {
            let found = Names::new(LIMIT).look_up(host, 80, never).await.unwrap();
            assert_eq!(found, [address.parse().unwrap()]);
        }
    }

    #[tokio::test]
    async fn a_name_without_an_answer_delays_no_other_and_takes_few_threads() {
        let names = Arc::new(Names::new(Duration::from_millis(200)));
        let (release, blocked) = mpsc::channel::<()>();
        let blocked = Arc::new(Mutex::new(blocked));
        let asked = Arc::new(AtomicUsize::new(0));
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (names, blocked, asked) = (names.clone(), blocked.clone(), asked.clone());
            waiting.spawn(async move {
                let hang = move |_: &str, _| {
                    asked.fetch_add(1, Ordering::SeqCst);
                    assert!(blocked.lock().unwrap().recv().is_err(), "nothing is ever sent");
                    Ok(Vec::new())
                };
                names.look_up("dead.example", 443, hang).await
            });
        }
        for result in waiting.join_all().await {
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        assert!(asked.load(Ordering::SeqCst) <= AT_ONCE);
        let answer = |_: &str, port| Ok(vec![SocketAddr::from((ANSWER, port))]);
        let found = names.ask("alive.example".to_owned(), 443, answer).await.unwrap();
        assert_eq!(found, [SocketAddr::from((ANSWER, 443))]);
        drop(release);
        let found = names.ask("dead.example".to_owned(), 443, answer).await.unwrap();
        assert_eq!(found.len(), 1, "it is looked up again once the system has given up");
    }
}

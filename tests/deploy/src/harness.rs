//! Slack, the SOAR and the commands, with threads and the standard library only.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

pub(crate) const SIGNING_SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";

/// No step takes so long, unless something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Returns the path of a tool, which `tests/deploy/run` passes in the environment.
pub(crate) fn tool(name: &str) -> PathBuf {
    env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: use tests/run deploy")).into()
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Runs a command and returns its standard output, or what it complained about.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stdout) + &text(&output.stderr))
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A folder of its own, which goes when the test ends.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("deploy-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Sends one request on a connection of its own.
pub(crate) fn request(
    to: SocketAddr,
    head: &str,
    headers: &[(&str, String)],
    body: &str,
) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = format!("{head} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.get(9..12).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other("no answer"))?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}

pub(crate) fn get(to: SocketAddr, path: &str) -> std::io::Result<u16> {
    request(to, &format!("GET {path}"), &[], "").map(|(status, _)| status)
}

/// Posts the `n`th incident as Slack would; returns the status.
pub(crate) fn post_incident(to: SocketAddr, n: usize) -> std::io::Result<u16> {
    let body = incident(n).to_string();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut mac = Hmac::<Sha256>::new_from_slice(SIGNING_SECRET.as_bytes()).unwrap();
    mac.update(format!("v0:{now}:{body}").as_bytes());
    let headers = [
        ("X-Slack-Request-Timestamp", now.to_string()),
        ("X-Slack-Signature", format!("v0={}", hex::encode(mac.finalize().into_bytes()))),
        ("Content-Type", "application/json".to_owned()),
    ];
    request(to, "POST /slack/events", &headers, &body).map(|(status, _)| status)
}

/// The ticket id of the `n`th incident.
pub(crate) fn ticket(n: usize) -> String {
    format!("1600689944{n:06}")
}

fn incident(n: usize) -> Value {
    let ts = format!("1600689944.{n:06}");
    json!({
        "type": "event_callback", "team_id": "T0RELAYTEAM", "api_app_id": "A0RELAYAPP1",
        "event_id": "Ev0RELAY0001", "event_time": 1_600_689_944,
        "event": {
            "type": "message", "subtype": "bot_message", "text": "", "ts": ts, "event_ts": ts,
            "channel": "C0123456789", "channel_type": "channel", "bot_id": "B0RELAYBOT1",
            "attachments": [{
                "title": "Code Defender has detected a new incident", "text": "PII Sniffing",
                "fields": [
                    {"title": "Script", "value": "`<https://cdn.example/pay.js>`"},
                    {"title": "Risk Level", "value": "High"},
                    {"title": "Host Domain", "value": "<http://shop.example|shop.example>"},
                ],
            }],
        },
    })
}

/// A SOAR on a loopback port, which remembers the tickets.
pub(crate) struct Soar {
    pub(crate) address: SocketAddr,
    tickets: Arc<(Mutex<BTreeSet<String>>, Condvar)>,
}

/// Answer of the SOAR to a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Answers with 200.
    Takes,
    /// Never sends an answer.
    Hangs,
}

impl Soar {
    pub(crate) fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tickets = Arc::<(Mutex<BTreeSet<String>>, Condvar)>::default();
        let taken = Arc::clone(&tickets);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let taken = Arc::clone(&taken);
                thread::spawn(move || serve(stream, mood, &taken));
            }
        });
        Self { address, tickets }
    }

    pub(crate) fn has(&self, ticket: &str) -> bool {
        self.tickets.0.lock().unwrap().contains(ticket)
    }

    /// Waits until it has so many tickets.
    pub(crate) fn wait_for(&self, count: usize) {
        let (tickets, changed) = &*self.tickets;
        let tickets = tickets.lock().unwrap();
        let wait = changed.wait_timeout_while(tickets, PATIENCE, |tickets| tickets.len() < count);
        let (tickets, timeout) = wait.unwrap();
        assert!(!timeout.timed_out(), "the SOAR has {} of {count}", tickets.len());
    }
}

fn serve(stream: TcpStream, mood: Mood, tickets: &(Mutex<BTreeSet<String>>, Condvar)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some(body) = read_request(&mut reader) {
        let body: Value = serde_json::from_slice(&body).unwrap();
        tickets.0.lock().unwrap().insert(body["ticket_id"].as_str().unwrap().to_owned());
        tickets.1.notify_all();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        if mood == Mood::Takes && writer.write_all(answer).is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

/// Reads a log until the relay listens; whatever follows is read and dropped.
pub(crate) fn until_listening(log: impl Read + Send + 'static) -> Result<(), String> {
    let mut seen = String::new();
    let mut lines = BufReader::new(log).lines();
    for line in lines.by_ref().map_while(Result::ok) {
        if line.contains("listening on") {
            // A log that nobody reads must not stop the relay.
            thread::spawn(move || lines.for_each(drop));
            return Ok(());
        }
        seen.extend([&*line, "\n"]);
    }
    Err(seen)
}

/// A process that is killed when the test ends.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

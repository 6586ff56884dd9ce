//! A pretend receiver on a loopback port, for tests: plain threads and blocking sockets, so that it
//! can misbehave below HTTP.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(in crate::destination) struct Got {
    pub(in crate::destination) line: String,
    headers: Vec<(String, String)>,
    pub(in crate::destination) body: Vec<u8>,
}

impl Got {
    /// Returns every value of the header.
    pub(in crate::destination) fn header(&self, name: &str) -> Vec<&str> {
        let found = self.headers.iter().filter(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).collect()
    }
}

/// The reaction to a request: bytes are written back, then the connection is closed.
pub(in crate::destination) enum Behave {
    Answer(String),
    /// Says nothing until the client has gone.
    Hang,
    /// Answers the head, then says nothing until the client has gone.
    HangAfter(String),
    /// Writes the first, and then the second without end, as long as the client reads.
    Flood(&'static str, &'static str),
}

pub(in crate::destination) struct Receiver {
    pub(in crate::destination) address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    flooded: Arc<Mutex<u64>>,
}

trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

impl Receiver {
    pub(in crate::destination) fn answering(answer: &str) -> Self {
        let answer = answer.to_owned();
        Self::new(move |_request| Behave::Answer(answer.clone()))
    }

    pub(in crate::destination) fn new(behave: impl Fn(&Got) -> Behave + Send + 'static) -> Self {
        Self::start(None, behave)
    }

    pub(in crate::destination) fn tls(config: ServerConfig) -> Self {
        Self::start(Some(Arc::new(config)), |_request| Behave::Answer(ok("")))
    }

    fn start(
        tls: Option<Arc<ServerConfig>>,
        behave: impl Fn(&Got) -> Behave + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (got, flooded) = (Arc::default(), Arc::default());
        let (seen, sent) = (Arc::clone(&got), Arc::clone(&flooded));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = match &tls {
                    None => serve(stream, &behave, &seen, &sent),
                    Some(config) => ServerConnection::new(Arc::clone(config))
                        .map_err(io::Error::other)
                        .and_then(|session| {
                            serve(StreamOwned::new(session, stream), &behave, &seen, &sent)
                        }),
                };
                // A client that breaks off is what many tests are about.
                drop(served);
            }
        });
        Self { address, got, flooded }
    }

    /// Resets every connection once the request has begun.
    pub(in crate::destination) fn resetting() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                // Closing with bytes unread makes the system send a reset.
                drop(stream.read_exact(&mut [0; 1]));
                drop::<TcpStream>(stream);
            }
        });
        address
    }

    pub(in crate::destination) fn url(&self) -> String {
        format!("http://{}/hooks/0123456789abcdef?api_key=k3y-0f-0urs", self.address)
    }

    pub(in crate::destination) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// Returns how much of an endless body the client has read.
    pub(in crate::destination) fn flooded(&self) -> u64 {
        *self.flooded.lock().unwrap()
    }
}

/// A complete answer with status 200.
pub(in crate::destination) fn ok(body: &str) -> String {
    answer("200 OK", "", body)
}

/// A complete answer; every header line ends with CR LF.
pub(in crate::destination) fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

fn serve(
    stream: impl Wire,
    behave: &impl Fn(&Got) -> Behave,
    seen: &Mutex<Vec<Got>>,
    flooded: &Mutex<u64>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let got = read_request(&mut stream)?;
    let behaviour = behave(&got);
    seen.lock().unwrap().push(got);
    let until_gone = |stream: &mut BufReader<_>| Read::read(stream, &mut [0; 1]).map(drop);
    match behaviour {
        Behave::Answer(answer) => {
            stream.get_mut().write_all(answer.as_bytes())?;
            stream.get_mut().flush()
        }
        Behave::Hang => until_gone(&mut stream),
        Behave::HangAfter(head) => {
            stream.get_mut().write_all(head.as_bytes())?;
            stream.get_mut().flush()?;
            until_gone(&mut stream)
        }
        Behave::Flood(head, piece) => {
            stream.get_mut().write_all(head.as_bytes())?;
            let pieces = piece.repeat(65_536 / piece.len());
            loop {
                stream.get_mut().write_all(pieces.as_bytes())?;
                *flooded.lock().unwrap() += u64::try_from(pieces.len()).unwrap();
            }
        }
    }
}

fn read_request(stream: &mut impl BufRead) -> io::Result<Got> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let line = lines.remove(0);
    let header = |line: &String| line.split_once(": ").map(|(n, v)| (n.to_owned(), v.to_owned()));
    let headers: Vec<_> = lines.iter().filter_map(header).collect();
    let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let mut body = vec![0; length.map_or(0, |(_, length)| length.parse().unwrap())];
    stream.read_exact(&mut body)?;
    Ok(Got { line, headers, body })
}

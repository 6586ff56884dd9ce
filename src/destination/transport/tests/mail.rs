//! Mails, against servers that follow a script in the words of RFC 5321.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use super::*;

/// Answers a connection (an empty line), a command, or the end of a mail (`.`); `None` stands for
/// what a server that takes everything says.
type Script = Box<dyn Fn(usize, &str) -> Option<&'static str> + Send>;

/// A mail server on loopback. It serves one connection after the other until its end.
struct MailServer {
    url: String,
    /// Lines that each connection received.
    said: Arc<Mutex<Vec<String>>>,
}

impl MailServer {
    fn new(script: impl Fn(usize, &str) -> Option<&'static str> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        let said = Arc::new(Mutex::new(Vec::new()));
        let (all, script): (_, Script) = (Arc::clone(&said), Box::new(script));
        thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                all.lock().unwrap().push(String::new());
                // A client that breaks off is part of what is tried.
                drop(serve(stream, number, &script, &all));
            }
        });
        Self { url, said }
    }

    fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    number: usize,
    script: &Script,
    said: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let lines = BufReader::new(stream.try_clone()?).lines();
    let mut in_data = false;
    let greeting = script(number, "").unwrap_or("220 here");
    stream.write_all(format!("{greeting}\r\n").as_bytes())?;
    for line in lines {
        let line = line?;
        {
            let mut said = said.lock().unwrap();
            said[number].push_str(&line);
            said[number].push('\n');
        }
        if in_data && line != "." {
            continue;
        }
        let answer = script(number, &line).unwrap_or(match line.as_str() {
            "DATA" => "354 go on",
            "QUIT" => "221 bye",
            _ => "250 ok",
        });
        in_data = answer.starts_with("354");
        stream.write_all(format!("{answer}\r\n").as_bytes())?;
        if line == "QUIT" || answer.starts_with("421") {
            break;
        }
    }
    Ok(())
}

fn mail(url: &str) -> Settings {
    mail_to(url, "soc@example.com")
}

fn mail_to(url: &str, to: &str) -> Settings {
    let params = [("from", "Relay <relay@example.com>"), ("to", to)];
    Settings {
        preset: Preset::builtin("email").unwrap(),
        params: params.map(|(name, value)| (name.to_owned(), value.into())).into_iter().collect(),
        ..settings(url)
    }
}

fn first_word(answer: &str) -> &str {
    answer.split(' ').next().unwrap()
}

const THREE: &str = "a@example.com, Bad <bad@example.com>, c@example.com";

#[tokio::test]
async fn a_mail_is_sent_once_it_is_accepted() {
    let server = MailServer::new(|_, line| (line == ".").then_some("250 queued as 7"));
    let receipt = deliver(mail(&server.url)).await.unwrap();
    assert!(receipt.excerpt.contains("queued as 7"), "{}", receipt.excerpt);
    let said = server.said().concat();
    assert!(said.contains("RCPT TO:<soc@example.com>"), "{said}");
    assert!(said.contains("Importance: high"), "{said}");
    assert!(said.contains("MIME-Version: 1.0"), "{said}");
}

#[tokio::test]
async fn one_bad_recipient_does_not_stop_the_mail_to_the_others() {
    for refusal in ["550 5.1.1 no such user", "552 5.2.2 mailbox full", "554 no", "501 syntax"] {
        let server =
            MailServer::new(move |_, line| line.starts_with("RCPT TO:<bad@").then_some(refusal));
        let destination = destination(mail_to(&server.url, THREE));
        for _alert in 0..2 {
            let receipt = destination.deliver(&sample_alert("text")).await.unwrap();
            assert!(receipt.excerpt.contains("refused: bad@example.com"), "{}", receipt.excerpt);
            assert!(receipt.excerpt.contains(first_word(refusal)), "{}", receipt.excerpt);
        }
        assert_eq!(server.said().len(), 2);
        for said in server.said() {
            assert!(said.contains("RCPT TO:<a@") && said.contains("RCPT TO:<c@"), "{said}");
            assert!(said.contains("\n.\n"), "{said}");
        }
        let problem = destination.problem();
        assert!(
            problem.contains("bad@example.com") && problem.contains(first_word(refusal)),
            "{problem}"
        );
    }
}

#[tokio::test]
async fn a_recipient_that_is_taken_again_is_no_problem_any_more() {
    let server = MailServer::new(|number, line| {
        (number == 0 && line.starts_with("RCPT TO:<bad@")).then_some("550 no such user")
    });
    let destination = destination(mail_to(&server.url, THREE));
    assert!(destination.deliver(&sample_alert("text")).await.is_ok());
    assert_ne!(destination.problem(), "");
    assert!(destination.deliver(&sample_alert("text")).await.is_ok());
    assert_eq!(destination.problem(), "");
}

#[tokio::test]
async fn a_recipient_that_is_deferred_gets_the_mail_later_and_nobody_gets_it_twice() {
    for deferral in ["451 4.7.1 greylisted", "452 4.5.3 too many", "552 5.5.3 too many"] {
        let server = MailServer::new(move |number, line| {
            (number < 2 && line.starts_with("RCPT TO:<bad@")).then_some(deferral)
        });
        let destination = destination(mail_to(&server.url, THREE));
        for _attempt in 0..2 {
            let error = destination.deliver(&sample_alert("text")).await.unwrap_err();
            assert_eq!(error.advice(), Advice::RetryAlert, "{deferral}: the server works");
            assert!(error.answer().unwrap().excerpt.contains("later: bad@example.com"));
        }
        let receipt = destination.deliver(&sample_alert("text")).await.unwrap();
        assert!(!receipt.duplicate);
        let said = server.said();
        for (attempt, (others, bad, mails)) in
            [(true, true, 1), (false, true, 0), (false, true, 1)].into_iter().enumerate()
        {
            assert_eq!(said[attempt].contains("RCPT TO:<a@"), others, "{deferral} {attempt}");
            assert_eq!(said[attempt].contains("RCPT TO:<bad@"), bad, "{deferral} {attempt}");
            assert_eq!(said[attempt].matches("\n.\n").count(), mails, "{deferral} {attempt}");
        }
        assert_eq!(destination.problem(), "");
    }
}

#[tokio::test]
async fn a_refusal_of_everybody_is_told_from_a_server_that_is_busy_and_from_wrong_credentials() {
    for (at, answer, label) in [
        ("RCPT", "550 no such user", "refused"),
        ("RCPT", "552 mailbox full", "refused"),
        ("RCPT", "554 5.7.1 relay access denied", "refused"),
        ("RCPT", "451 greylisted", "destination_fault"),
        ("RCPT", "421 shutting down", "destination_fault"),
        ("RCPT", "530 authenticate first", "auth"),
        ("MAIL", "550 sender refused", "refused"),
        ("MAIL", "452 no space", "destination_fault"),
        ("MAIL", "530 5.7.0 authentication required", "auth"),
        ("DATA", "554 no valid recipients", "refused"),
        ("DATA", "421 shutting down", "destination_fault"),
        (".", "451 try again later", "destination_fault"),
        (".", "535 who are you", "auth"),
        (".", "552 5.3.4 too big", "refused"),
        (".", "554 5.7.1 policy", "refused"),
    ] {
        let server = MailServer::new(move |_, line| line.starts_with(at).then_some(answer));
        let destination = destination(mail_to(&server.url, THREE));
        let error = destination.deliver(&sample_alert("text")).await.unwrap_err();
        assert_eq!(error.label(), label, "{at} {answer}");
        assert!(shown(&error).contains(first_word(answer)), "{}", shown(&error));
        assert_eq!(destination.problem(), "", "{at} {answer}: nobody has the mail");
    }
}

#[tokio::test]
async fn everybody_refused_or_deferred_is_a_server_that_is_busy() {
    let server = MailServer::new(|_, line| match line {
        line if line.starts_with("RCPT TO:<bad@") => Some("550 no such user"),
        line if line.starts_with("RCPT") => Some("451 greylisted"),
        _ => None,
    });
    let error = deliver(mail_to(&server.url, THREE)).await.unwrap_err();
    assert_eq!((error.label(), error.advice()), ("destination_fault", Advice::Retry));
    assert!(!server.said().concat().contains("DATA"));
}

#[tokio::test]
async fn a_mail_server_that_does_not_begin_a_session_is_at_fault() {
    for (at, answer, label) in [
        ("", "554 no SMTP service here", "destination_fault"),
        ("", "421 too many connections", "destination_fault"),
        ("EHLO", "550 who?", "destination_fault"),
        ("EHLO", "530 who?", "auth"),
    ] {
        let says =
            move |line: &str| if at.is_empty() { line.is_empty() } else { line.starts_with(at) };
        let server = MailServer::new(move |_, line| says(line).then_some(answer));
        let error = deliver(mail(&server.url)).await.unwrap_err();
        assert_eq!(error.label(), label, "{}", shown(&error));
    }
}

#[test]
fn a_password_is_never_sent_in_clear_text() {
    for url in [
        "smtp://relay:p4ss@mail.example.com",
        "smtp://relay:p4ss@mail.example.com:587",
        "smtp://relay:p4ss@mail.example.com?tls=opportunistic",
        "smtp://relay:p4ss@127.0.0.1:25",
        "smtp://:p4ss@127.0.0.1:25",
    ] {
        let error = Destination::new(mail(url), clock()).unwrap_err().to_string();
        assert!(error.contains("clear text") && error.contains("tls=required"), "{url}: {error}");
        assert!(!error.contains("p4ss"), "{error}");
    }
    let error = Destination::new(mail("smtps://relay@mail.example.com"), clock()).unwrap_err();
    assert!(error.to_string().contains("a user without a password"), "{error}");
    for url in [
        "smtps://relay:p4ss@mail.example.com",
        "smtp://relay:p4ss@mail.example.com?tls=required",
        "smtp://mail.example.com?tls=opportunistic",
        "smtp://mail.example.com",
    ] {
        assert!(Destination::new(mail(url), clock()).is_ok(), "{url}");
    }
}

#[tokio::test]
async fn a_server_that_no_longer_offers_starttls_gets_no_password() {
    let server = MailServer::new(|_, line| {
        line.starts_with("EHLO").then_some("250-here\r\n250 AUTH PLAIN LOGIN")
    });
    let url = server.url.replace("smtp://", "smtp://relay:p4ss@") + "?tls=required";
    let error = deliver(mail(&url)).await.unwrap_err();
    assert_eq!(error.advice(), Advice::Retry);
    assert!(!server.said().concat().contains("AUTH"), "{:?}", server.said());
}

#[test]
fn a_mail_server_at_a_metadata_address_is_refused_at_setup() {
    for url in ["smtp://169.254.169.254:25", "smtps://u:p4ss@[::ffff:169.254.169.254]"] {
        let error = Destination::new(mail(url), clock()).unwrap_err();
        assert!(error.to_string().contains("link-local"), "{error}");
    }
}

#[tokio::test]
async fn a_mail_server_whose_name_leads_to_a_metadata_address_is_never_contacted() {
    // The system's resolver reads this as 169.254.169.254, and a URL as a name.
    for name in ["2852039166", "0xa9fea9fe"] {
        let error = deliver(mail(&format!("smtps://u:p4ss@{name}:25"))).await.unwrap_err();
        assert_eq!(error.advice(), Advice::Retry);
        assert!(shown(&error).contains("never contacted"), "{}", shown(&error));
        assert!(!shown(&error).contains("p4ss"), "{}", shown(&error));
    }
}

#[test]
fn what_a_mail_cannot_use_is_refused_at_setup() {
    let mut proxied = mail("smtp://127.0.0.1:25");
    proxied.client.proxy = Some("http://127.0.0.1:3128".to_owned());
    let mut signed = mail("smtp://127.0.0.1:25");
    signed.signing_secret = Some(secret("a-key"));
    for (settings, word) in [
        (proxied, "`proxy`"),
        (signed, "`signing_secret`"),
        (mail("smtp://127.0.0.1:25?tls=require"), "`opportunistic`"),
    ] {
        let error = Destination::new(settings, clock()).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn an_address_that_is_none_is_found_before_the_start() {
    let mut wrong = mail("smtp://127.0.0.1:25");
    wrong.params.insert("to".to_owned(), "nobody".into());
    let error = Destination::new(wrong, clock()).unwrap_err();
    assert!(error.to_string().contains("`to`"), "{error}");
}

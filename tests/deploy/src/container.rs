//! The image, run as the chart runs it: another user, a read-only root, no capabilities. Podman and
//! runc stand in for the kubelet; the pod's probes and its network policy are not part of it.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{PermissionsExt, chown},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    harness::{
        Folder, Mood, Process, SIGNING_SECRET, Soar, free_port, get, post_incident, run, ticket,
        tool, until_listening,
    },
    objects::{Object, Typed, objects, template},
};

/// Size of the whole image, as a registry keeps it and as it is on a node.
const MAX_IMAGE_BYTES: u64 = 20_000_000;

const MAX_IDLE_KB: u64 = 20_000;

/// User and group that the image runs as.
const USER: u32 = 65532;

/// A container with the chart's configuration, which goes when the test ends.
struct Container {
    name: String,
    public: SocketAddr,
    ops: SocketAddr,
    folder: Folder,
    /// Keeps the log flowing.
    _logs: Process,
}

fn podman() -> Command {
    Command::new("podman")
}

/// `podman run`, with what the pod has: files, rights and memory.
fn run_image(folder: &Folder) -> Command {
    let mut command = podman();
    command.args(["run", "--network=host", "--read-only", "--read-only-tmpfs=false"]);
    command.args(["--cap-drop=ALL", "--security-opt=no-new-privileges", "--memory=128m"]);
    for (mount, mode) in [("config", "ro"), ("secrets", "ro"), ("data", "rw")] {
        command.arg(format!("--volume={}:/{mount}:{mode}", folder.join(mount).display()));
    }
    command
}

impl Container {
    fn start(name: &str, soar: &Soar) -> Self {
        let name = format!("deploy-checks-{name}-{}", std::process::id());
        let folder = Folder::new(&name);
        let [public, ops] =
            [free_port(), free_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        // The host's network is shared, so only the ports differ from what the chart says.
        let config = chart_config()
            .replace("0.0.0.0:8080", &public.to_string())
            .replace("0.0.0.0:9090", &ops.to_string());
        folder.write("config/relay.yaml", &config);
        for (key, value) in [
            ("signing-secret", SIGNING_SECRET),
            ("bot-token", "xoxb-nobody"),
            ("ops-token", "an-operator"),
            ("soar-url", &format!("http://{}/", soar.address)),
        ] {
            let path = folder.write(&format!("secrets/{key}"), value);
            // As Kubernetes mounts them: root's, readable by the pod's group.
            chown(&path, Some(0), Some(USER)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
        }
        fs::create_dir(folder.join("data")).unwrap();
        chown(folder.join("data"), Some(0), Some(USER)).unwrap();
        fs::set_permissions(folder.join("data"), fs::Permissions::from_mode(0o2770)).unwrap();
        run(run_image(&folder).args(["--detach", "--name", &name]).arg(tool("DEPLOY_IMAGE")))
            .unwrap();
        let mut logs = podman();
        logs.args(["logs", "--follow", &name]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut logs = logs.spawn().unwrap();
        let log = logs.stderr.take().unwrap();
        let container = Self { name, public, ops, folder, _logs: Process(logs) };
        until_listening(log).unwrap();
        container
    }

    fn inspect(&self, field: &str) -> String {
        let format = format!("--format={{{{.State.{field}}}}}");
        run(podman().args(["inspect", &format, &self.name])).unwrap().trim().to_owned()
    }

    /// A line of the kernel's own report of the process.
    fn kernel(&self, key: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.inspect("Pid"))).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {key}")).split_whitespace().next().unwrap().to_owned()
    }

    /// Stops the container as the kubelet ends a pod. Returns the time it took and the exit code.
    fn stop(&self) -> (Duration, String) {
        let started = Instant::now();
        run(podman().args(["stop", "--time=30", &self.name])).unwrap();
        (started.elapsed(), self.inspect("ExitCode"))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(run(podman().args(["rm", "--force", "--time=0", &self.name])));
    }
}

fn chart() -> Vec<Object> {
    objects(&template(&tool("DEPLOY_HELM"), "quickstart", &[]).unwrap())
}

fn chart_config() -> String {
    let config = chart().into_iter().find_map(|object| match object.typed {
        Typed::ConfigMap(map) => map.data?.remove("relay.yaml"),
        _ => None,
    });
    config.unwrap()
}

#[test]
fn without_any_right_it_takes_an_event_delivers_it_and_ends_with_0() {
    let soar = Soar::start(Mood::Takes);
    let container = Container::start("idle", &soar);
    assert_eq!(get(container.ops, "/readyz").unwrap(), 200);
    let idle_kb: u64 = container.kernel("VmRSS").parse().unwrap();
    assert!(idle_kb < MAX_IDLE_KB, "{idle_kb} kB idle");
    assert_eq!(container.kernel("Uid"), USER.to_string());
    assert_eq!(u64::from_str_radix(&container.kernel("CapEff"), 16), Ok(0));
    assert_eq!(u64::from_str_radix(&container.kernel("CapBnd"), 16), Ok(0));
    assert_eq!(container.kernel("NoNewPrivs"), "1");
    assert_eq!(container.kernel("Seccomp"), "2", "the default seccomp profile filters");
    let healthcheck = ["exec", &container.name, "/slack-soar-relay", "healthcheck"];
    assert_eq!(run(podman().args(healthcheck)).as_deref(), Ok("ok\n"));
    assert_eq!(post_incident(container.public, 1).unwrap(), 200);
    soar.wait_for(1);
    assert!(soar.has(&ticket(1)));
    // What docs/kubernetes.md has for a pod that Helm did not install.
    let sends = ["exec", &container.name, "/slack-soar-relay", "send-test"];
    let shown = run(podman().args(sends)).unwrap();
    assert!(shown.contains("soar: delivered"), "{shown}");
    let lists = ["exec", &container.name, "/slack-soar-relay", "alerts", "list"];
    assert!(run(podman().args(lists)).unwrap().contains("delivered"));
    let (took, code) = container.stop();
    assert_eq!(code, "0");
    assert!(took < Duration::from_secs(10), "{took:?}");
    println!("idle {idle_kb} kB, ended in {took:?}");
}

#[test]
fn helm_tests_pod_posts_an_incident_and_sees_it_delivered() {
    let soar = Soar::start(Mood::Takes);
    let relay = Container::start("helm-test", &soar);
    let objects = chart();
    let test = objects.iter().find(|object| object.kind() == "Pod").unwrap();
    let (pod, _) = test.pod().unwrap();
    // No cluster resolves the names of the Services here.
    let arguments = pod.containers[0].args.as_ref().unwrap().iter().map(|argument| {
        argument
            .replace("rel-slack-soar-relay-ops:9090", &relay.ops.to_string())
            .replace("rel-slack-soar-relay:8080", &relay.public.to_string())
    });
    let mut command = run_image(&relay.folder);
    let shown = run(command.arg("--rm").arg(tool("DEPLOY_IMAGE")).args(arguments)).unwrap();
    assert!(shown.contains("soar: delivered"), "{shown}");
    soar.wait_for(1);
}

#[test]
fn with_attempts_under_way_it_ends_with_0_within_25_seconds() {
    let soar = Soar::start(Mood::Hangs);
    let container = Container::start("loaded", &soar);
    for n in 0..8 {
        assert_eq!(post_incident(container.public, n).unwrap(), 200);
    }
    soar.wait_for(4);
    let (took, code) = container.stop();
    assert_eq!(code, "0");
    assert!(took < Duration::from_secs(25), "{took:?}");
    println!("ended in {took:?}");
}

#[test]
fn the_image_is_small_and_holds_one_file() {
    let folder = Folder::new("image");
    let archive = folder.join("image.tar");
    let to = format!("oci-archive:{}", archive.display());
    run(podman().args(["push", "--quiet"]).arg(tool("DEPLOY_IMAGE")).arg(to)).unwrap();
    let packed = fs::metadata(&archive).unwrap().len();
    let unpacked = fs::metadata(tool("DEPLOY_RELAY")).unwrap().len();
    println!("{packed} bytes packed, {unpacked} unpacked");
    assert!(packed < MAX_IMAGE_BYTES, "{packed} bytes packed");
    assert!(unpacked < MAX_IMAGE_BYTES, "{unpacked} bytes unpacked");
    let image = tool("DEPLOY_IMAGE");
    let inspect = |field: &str| {
        let format = format!("--format={{{{json .Config.{field}}}}}");
        run(podman().args(["image", "inspect", &format]).arg(&image)).unwrap()
    };
    assert_eq!(inspect("User").trim(), r#""65532:65532""#);
    let labels = inspect("Labels");
    for label in ["title", "licenses", "version", "revision"] {
        assert!(labels.contains(&format!("org.opencontainers.image.{label}")), "{labels}");
    }
}

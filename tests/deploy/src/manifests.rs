//! Promises of the chart and the plain manifests. Rendering checks that every object parses as its
//! type, with no field left over.

use std::{collections::BTreeSet, fs, process::Command};

use k8s_openapi::{
    api::core::v1::{Container, PodSpec, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::Value;

use crate::{
    harness::{Folder, root, run, tool},
    objects::{
        CI, NAMESPACE, Object, RELEASE, Typed, objects, renderings, template, template_as, text,
    },
};

/// Longest time from the end of the drain delay to the end of the relay (docs/kubernetes.md).
const END_SECONDS: i64 = 20;

fn each(check: impl Fn(&str, &[Object])) {
    for (rendering, objects) in renderings() {
        check(rendering, &objects);
    }
}

fn pods(objects: &[Object]) -> impl Iterator<Item = (&Object, &PodSpec, &Value)> {
    objects.iter().filter_map(|object| object.pod().map(|(pod, meta)| (object, pod, meta)))
}

/// The pod of the relay itself, with its labels.
fn relay_pod(objects: &[Object]) -> (&PodSpec, &Value) {
    let is_relay = |object: &Object| ["StatefulSet", "Deployment"].contains(&object.kind());
    objects.iter().find(|object| is_relay(object)).unwrap().pod().unwrap()
}

/// Returns whether labels satisfy a selector.
fn selects(selector: &Value, labels: &Value) -> bool {
    let mut wanted = selector.as_object().unwrap().iter();
    !selector.as_object().unwrap().is_empty() && wanted.all(|(key, value)| labels[key] == *value)
}

#[test]
fn every_pod_keeps_to_the_restricted_profile_and_has_no_api_token() {
    each(|rendering, objects| {
        assert!(pods(objects).count() > 0, "{rendering}");
        for (object, pod, _) in pods(objects) {
            let name = format!("{rendering}: {}", object.name());
            assert_eq!(pod.automount_service_account_token, Some(false), "{name}");
            assert_eq!(pod.enable_service_links, Some(false), "{name}");
            for shared in [pod.host_network, pod.host_pid, pod.host_ipc] {
                assert_ne!(shared, Some(true), "{name}");
            }
            let security = pod.security_context.as_ref().unwrap();
            assert_eq!(security.run_as_non_root, Some(true), "{name}");
            assert_eq!(security.run_as_user, Some(65532), "{name}");
            assert_eq!(security.seccomp_profile.as_ref().unwrap().type_, "RuntimeDefault");
            assert!(pod.init_containers.is_none() && pod.ephemeral_containers.is_none());
            pod.containers.iter().for_each(|container| restricted(&name, container));
            for volume in pod.volumes.iter().flatten() {
                assert!(volume.host_path.is_none(), "{name}");
            }
        }
        assert!(!objects.iter().any(|object| object.kind().contains("Role")), "{rendering}");
    });
}

fn restricted(name: &str, container: &Container) {
    let security = container.security_context.as_ref().unwrap();
    assert_eq!(security.allow_privilege_escalation, Some(false), "{name}");
    assert_eq!(security.read_only_root_filesystem, Some(true), "{name}");
    assert_ne!(security.privileged, Some(true), "{name}");
    let capabilities = security.capabilities.as_ref().unwrap();
    assert_eq!(capabilities.drop.as_deref(), Some(&["ALL".to_owned()][..]), "{name}");
    assert!(capabilities.add.is_none(), "{name}");
    let limits = container.resources.as_ref().unwrap().limits.as_ref().unwrap();
    assert!(limits.contains_key("memory") && !limits.contains_key("cpu"), "{name}");
}

#[test]
fn selectors_find_the_relay_and_never_another_pod() {
    each(|rendering, objects| {
        let (_, meta) = relay_pod(objects);
        let labels = &meta["labels"];
        let others =
            || pods(objects).filter(|(object, ..)| ["Pod", "Job"].contains(&object.kind()));
        let mut found = 0;
        for object in objects {
            let spec = &object.value["spec"];
            let selector = match object.kind() {
                "Service" => &spec["selector"],
                "StatefulSet" | "Deployment" | "PodDisruptionBudget" | "PodMonitor" => {
                    &spec["selector"]["matchLabels"]
                }
                "NetworkPolicy" => &spec["podSelector"]["matchLabels"],
                _ => continue,
            };
            found += 1;
            assert!(selects(selector, labels), "{rendering}: {}", object.kind());
            // A version in a selector would break the first upgrade.
            assert!(selector.get("app.kubernetes.io/version").is_none(), "{rendering}");
            for (_, _, meta) in others() {
                assert!(!selects(selector, &meta["labels"]), "{rendering}");
            }
        }
        assert!(found >= 3, "{rendering}");
        for monitor in objects.iter().filter(|object| object.kind() == "ServiceMonitor") {
            let selector = &monitor.value["spec"]["selector"]["matchLabels"];
            let services = objects.iter().filter(|object| object.kind() == "Service");
            let selected: Vec<_> = services
                .filter(|service| selects(selector, &service.value["metadata"]["labels"]))
                .map(Object::name)
                .collect();
            assert!(selected.len() == 1 && selected[0].ends_with("-ops"), "{selected:?}");
        }
    });
}

#[test]
fn every_port_is_one_that_is_there() {
    each(|rendering, objects| {
        let (pod, _) = relay_pod(objects);
        let ports = pod.containers[0].ports.as_ref().unwrap();
        let names: BTreeSet<_> = ports.iter().filter_map(|port| port.name.as_deref()).collect();
        assert_eq!(names, BTreeSet::from(["http", "ops"]), "{rendering}");
        let is_there = |port: &IntOrString| match port {
            IntOrString::String(name) => names.contains(name.as_str()),
            IntOrString::Int(_) => false,
        };
        for probe in probes(&pod.containers[0]) {
            let get = probe.http_get.as_ref().unwrap();
            assert!(is_there(&get.port), "{rendering}");
            assert_eq!(get.port, IntOrString::String("ops".to_owned()), "{rendering}");
        }
        for object in objects {
            match &object.typed {
                Typed::Service(service) => {
                    for port in service.spec.as_ref().unwrap().ports.as_ref().unwrap() {
                        assert!(is_there(port.target_port.as_ref().unwrap()), "{rendering}");
                    }
                }
                Typed::NetworkPolicy(policy) => {
                    for rule in policy.spec.as_ref().unwrap().ingress.as_ref().unwrap() {
                        for port in rule.ports.as_ref().unwrap() {
                            assert!(is_there(port.port.as_ref().unwrap()), "{rendering}");
                        }
                    }
                }
                _ => {}
            }
        }
        for endpoint in objects.iter().filter(|object| object.kind().ends_with("Monitor")) {
            assert!(endpoint.value.to_string().contains(r#""port":"ops""#), "{rendering}");
        }
    });
}

fn probes(container: &Container) -> [&Probe; 3] {
    [&container.startup_probe, &container.liveness_probe, &container.readiness_probe]
        .map(|probe| probe.as_ref().unwrap())
}

#[test]
fn a_relay_that_is_not_ready_may_start_and_can_be_asked_by_operators_only() {
    each(|rendering, objects| {
        let serves = |object: &Object| ["Deployment", "StatefulSet"].contains(&object.kind());
        for (object, pod, _) in pods(objects).filter(|(object, ..)| serves(object)) {
            let paths = probes(&pod.containers[0])
                .map(|probe| probe.http_get.as_ref().unwrap().path.as_deref().unwrap());
            assert_eq!(paths, ["/livez", "/livez", "/readyz"], "{rendering}: {}", object.name());
        }
        for object in objects.iter().filter(|object| object.kind() == "Service") {
            let Typed::Service(service) = &object.typed else { continue };
            let published = service.spec.as_ref().unwrap().publish_not_ready_addresses;
            let is_for_operators = object.name().ends_with("-ops");
            assert_eq!(published, is_for_operators.then_some(true), "{rendering}");
        }
    });
}

#[test]
fn only_slacks_paths_are_public_and_only_by_the_public_port() {
    each(|rendering, objects| {
        for object in objects {
            let (service, paths) = match &object.typed {
                Typed::HttpRoute => {
                    let rule = &object.value["spec"]["rules"][0];
                    let paths = rule["matches"].as_array().unwrap().iter().map(|one| {
                        assert_eq!(
                            (&one["path"]["type"], &one["method"]),
                            (&"Exact".into(), &"POST".into())
                        );
                        text(one, "/path/value")
                    });
                    assert_eq!(rule["timeouts"]["request"], "3s");
                    (&rule["backendRefs"][0], paths.collect::<Vec<_>>())
                }
                Typed::Ingress => {
                    let paths = object.value["spec"]["rules"][0]["http"]["paths"].as_array();
                    let paths = paths.unwrap();
                    assert!(paths.iter().all(|path| path["pathType"] == "Exact"));
                    let service = &paths[0]["backend"]["service"];
                    (service, paths.iter().map(|path| text(path, "/path")).collect())
                }
                _ => continue,
            };
            assert!(paths.iter().all(|path| path.starts_with("/slack/events")), "{rendering}");
            let expected: &[&str] = match rendering {
                "everything" => &["/slack/events/europe", "/slack/events/america"],
                _ => &["/slack/events", "/slack/events/main"],
            };
            assert_eq!(paths, expected, "{rendering}");
            let name = text(service, "/name");
            let mut services = objects.iter().filter(|object| object.kind() == "Service");
            let service = services.find(|service| service.name() == name).unwrap();
            assert_eq!(service.value["spec"]["ports"][0]["targetPort"], "http", "{rendering}");
        }
    });
}

#[test]
fn mounts_have_volumes_and_only_the_store_can_be_written() {
    each(|rendering, objects| {
        for (object, pod, _) in pods(objects) {
            let mut volumes: BTreeSet<_> =
                pod.volumes.iter().flatten().map(|volume| volume.name.as_str()).collect();
            if let Typed::StatefulSet(set) = &object.typed {
                let claims = set.spec.as_ref().unwrap().volume_claim_templates.iter().flatten();
                volumes.extend(claims.map(|claim| claim.metadata.name.as_deref().unwrap()));
            }
            let mounts = pod.containers[0].volume_mounts.as_ref().unwrap();
            let mounted: BTreeSet<_> = mounts.iter().map(|mount| mount.name.as_str()).collect();
            assert_eq!(volumes, mounted, "{rendering}: {}", object.name());
            let keeps = ["StatefulSet", "Job"].contains(&object.kind());
            assert_eq!(mounted.contains("data"), keeps, "{rendering}: {}", object.name());
            for mount in mounts {
                let writable = mount.read_only != Some(true);
                assert_eq!(writable, mount.mount_path == "/data", "{rendering}");
            }
        }
    });
}

#[test]
fn every_name_fits_and_every_object_is_in_the_namespace() {
    each(|rendering, objects| {
        let mut seen = BTreeSet::new();
        for object in objects.iter().filter(|object| object.kind() != "Namespace") {
            assert!(object.name().len() <= 52, "{rendering}: {}", object.name());
            assert!(seen.insert((object.kind(), object.name())), "{rendering}: twice");
            if !rendering.starts_with("base") && !matches!(object.typed, Typed::Foreign) {
                assert_eq!(text(&object.value, "/metadata/namespace"), NAMESPACE, "{rendering}");
            }
        }
    });
}

#[test]
fn the_pod_is_killed_only_after_the_relay_had_time_to_drain() {
    each(|rendering, objects| {
        let (pod, _) = relay_pod(objects);
        let config = config(objects);
        let drain = text(&config, "/server/drain_delay").trim_end_matches('s').parse::<i64>();
        let grace = pod.termination_grace_period_seconds.unwrap();
        assert!(grace >= drain.unwrap() + END_SECONDS, "{rendering}: {grace}");
    });
}

/// The relay's configuration, as the pod will read it.
fn config(objects: &[Object]) -> Value {
    serde_saphyr::from_str(&config_text(objects)).unwrap()
}

fn config_text(objects: &[Object]) -> String {
    let mut files = objects.iter().filter_map(|object| match &object.typed {
        Typed::ConfigMap(map) => map.data.as_ref().unwrap().get("relay.yaml").cloned(),
        _ => None,
    });
    files.next().expect("no relay.yaml")
}

#[test]
fn the_relay_itself_accepts_the_rendered_configuration() {
    each(|rendering, objects| {
        let folder = Folder::new(&format!("check-{}", rendering.replace('/', "-")));
        let mut text = config_text(objects);
        for path in text.clone().split_whitespace().filter(|word| word.starts_with("/secrets/")) {
            let path = path.trim_matches(|c| ['/', '}', ','].contains(&c));
            let is_database = path.contains("database");
            let database = "postgresql://relay:secret@db.example.com/relay";
            // Each has a value of its own: apps that share a signing secret would need a `team`.
            let soar = format!("https://soar.example.com/{path}");
            folder.write(path, if is_database { database } else { &soar });
        }
        for (name, preset) in objects.iter().flat_map(presets) {
            folder.write(&format!("presets/{name}"), &preset);
        }
        text = text.replace("/ca/ca.crt", "/etc/ssl/certs/ca-certificates.crt");
        for mount in ["/secrets/", "/presets", "/data/"] {
            let place = folder.join(mount.trim_matches('/'));
            let end = if mount.ends_with('/') { "/" } else { "" };
            text = text.replace(mount, &format!("{}{end}", place.display()));
        }
        let path = folder.write("relay.yaml", &text);
        let checked = run(Command::new(tool("DEPLOY_RELAY")).args(["check", "--config"]).arg(path));
        assert!(checked.is_ok(), "{rendering}: {}\n{text}", checked.unwrap_err());
    });
}

fn presets(object: &Object) -> Vec<(String, String)> {
    match &object.typed {
        Typed::ConfigMap(map) if object.name().ends_with("-presets") => {
            map.data.clone().unwrap().into_iter().collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn a_config_map_names_secrets_and_never_holds_one() {
    each(|rendering, objects| {
        let secrets: Vec<_> = objects.iter().filter(|one| one.kind() == "Secret").collect();
        assert!(secrets.is_empty(), "{rendering}");
        let mut references = 0;
        secret_references(&config(objects), "", &mut |key, value| {
            let file = value.get("file").and_then(Value::as_str).unwrap_or_default();
            assert!(file.starts_with("/secrets/"), "{rendering}: {key}: {value}");
            references += 1;
        });
        assert!(references >= 2, "{rendering}");
    });
}

/// Calls for each value whose key says that it is a secret.
fn secret_references(value: &Value, key: &str, found: &mut impl FnMut(&str, &Value)) {
    let is_secret = ["secret", "token", "url"].iter().any(|word| key.ends_with(word));
    if is_secret && key != "api_url" {
        found(key, value);
    } else if let Some(object) = value.as_object() {
        object.iter().for_each(|(key, value)| secret_references(value, key, found));
    } else if let Some(list) = value.as_array() {
        list.iter().for_each(|value| secret_references(value, key, found));
    }
}

#[test]
fn wrong_values_are_refused_and_the_reason_is_said() {
    let refused = [
        (&["--set", "replicaCount=2"][..], "SQLite store belongs to one relay"),
        (&["--set", "replicaCount=two"], "replicaCount"),
        (&["--set", "replicaCuont=1"], "replicaCuont"),
        (&["--set", "existingSecret="], "existingSecret"),
        (&["--set", "image.repository="], "repository"),
        (&["--set", "image.digest=latest"], "digest"),
        (&["--set", "persistence.accessMode=ReadWriteMany"], "accessMode"),
        (&["--set", "config.server.listen=0.0.0.0:1"], "listen"),
        (&["--set", "config.server.drain_delay=1m"], "drain_delay"),
        (&["--set", "config.store.sqlite.path=/tmp/x"], "path"),
        (&["--set", "config.destinations[0].timout=5s"], "timout"),
        (&["--set", "config.destinations[0].timeout=5"], "timeout"),
        (&["--set", "config.destinations[0].url=https://hook"], "url"),
        (&["--set", "config.destinations[0].url.env=URL"], "env"),
        (&["--set", "config.destinations[0].proxy=http://u:p@proxy:1"], "proxy"),
        (&["--set", "config.slack.apps[0].signing_secret.file=/tmp/s"], "signing_secret"),
        (&["--set", "config.slack.apps=null"], "apps"),
        (&["--set", "httpRoute.parentRefs=null"], "httpRoute.parentRefs"),
        (&["--set", "ingress.enabled=true"], "ingress.hostname"),
        (&["--set", "ingress.enabled=true,ingress.hostname=a.example"], "tlsSecretName"),
        (&["--set", "podMonitor.enabled=true,serviceMonitor.enabled=true"], "twice"),
        (&["--kube-version", "1.27.0"], "1.28"),
        (&["--set", "config.store.postgres.max_connections=5"], "url"),
        (&["--set", "config.store.postgres.url=postgresql://relay:pw@db/relay"], "url"),
        (&["--set", "config.store.postgres.url.env=DATABASE_URL"], "env"),
        (
            &[
                "--set",
                "config.store.postgres.url.file=/secrets/u,config.store.sqlite.max_size=2GiB",
            ],
            "one store",
        ),
        (&["--set", "networkPolicy.databasePorts[0]=0"], "databasePorts"),
        (&["--set", "networkPolicy.egressPorts=null"], "egressPorts"),
        (&["--set", "listenOn=127.0.0.1"], "listenOn"),
        (&["--set", "fullnameOverride=relay.example"], "fullnameOverride"),
        (&["--set", "migrateFromClaim=data"], "replicaCount: 0"),
    ];
    for helm in ["DEPLOY_HELM", "DEPLOY_HELM3"].map(tool) {
        for (arguments, reason) in refused {
            let error = template(&helm, "quickstart", arguments).expect_err(reason);
            assert!(error.contains(reason), "{arguments:?}: {error}");
        }
        let error = template_as("7-relays", &helm, "quickstart", &[]).unwrap_err();
        assert!(error.contains("set fullnameOverride"), "{error}");
    }
}

#[test]
fn helm_3_and_4_render_the_same() {
    for values in CI {
        let [four, three] =
            ["DEPLOY_HELM", "DEPLOY_HELM3"].map(|helm| template(&tool(helm), values, &[]).unwrap());
        assert_eq!(four, three, "{values}");
    }
}

#[test]
fn replicas_on_postgresql_are_spread_and_leave_one_at_a_time() {
    for (rendering, objects) in renderings() {
        let deployments = objects.iter().filter_map(|object| match &object.typed {
            Typed::Deployment(deployment) => deployment.spec.as_ref(),
            _ => None,
        });
        let deployments: Vec<_> = deployments.collect();
        assert_eq!(deployments.len(), usize::from(rendering.contains("postgres")), "{rendering}");
        let budgets = objects.iter().filter_map(|object| match &object.typed {
            Typed::DisruptionBudget(budget) => budget.spec.as_ref(),
            _ => None,
        });
        let budgets: Vec<_> = budgets.collect();
        assert_eq!(budgets.len(), deployments.len(), "{rendering}");
        for (deployment, budget) in deployments.into_iter().zip(budgets) {
            let runs = rendering != "postgres-move";
            assert_eq!(deployment.replicas.unwrap() >= 2, runs, "{rendering}");
            let rolling = deployment.strategy.as_ref().unwrap().rolling_update.as_ref().unwrap();
            assert_eq!(rolling.max_unavailable, Some(IntOrString::Int(0)), "{rendering}");
            assert_eq!(budget.max_unavailable, Some(IntOrString::Int(1)), "{rendering}");
            let pod = deployment.template.spec.as_ref().unwrap();
            let spread = pod.topology_spread_constraints.as_ref().unwrap();
            let keys: Vec<_> = spread.iter().map(|one| one.topology_key.as_str()).collect();
            assert_eq!(keys, ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]);
            for one in spread {
                let labels = one.label_selector.as_ref().unwrap();
                assert_eq!(Some(labels), Some(&deployment.selector), "{rendering}");
                assert_eq!(one.when_unsatisfiable, "ScheduleAnyway", "{rendering}");
            }
        }
    }
}

#[test]
fn a_policy_opens_the_databases_ports_only_for_a_relay_that_has_one() {
    each(|rendering, objects| {
        for policy in objects.iter().filter(|object| object.kind() == "NetworkPolicy") {
            let egress = policy.value["spec"]["egress"].to_string();
            assert_eq!(egress.contains("5432"), rendering.contains("postgres"), "{rendering}");
        }
    });
}

#[test]
fn nobody_among_the_operators_is_nobody_and_not_everybody() {
    let rules_of_ops = |arguments: &[&str]| {
        let objects = objects(&template(&tool("DEPLOY_HELM"), "quickstart", arguments).unwrap());
        let policy = objects.iter().find(|object| object.kind() == "NetworkPolicy").unwrap();
        let rules = policy.value["spec"]["ingress"].as_array().unwrap().clone();
        rules.into_iter().filter(|rule| rule.to_string().contains("ops")).collect::<Vec<_>>()
    };
    let from = |rules: &[Value]| rules.iter().map(|rule| rule["from"].clone()).collect::<Vec<_>>();
    let default = from(&rules_of_ops(&[]));
    let closed = from(&rules_of_ops(&["--set-json", "networkPolicy.opsFrom=[]"]));
    assert!(default.iter().chain(&closed).all(Value::is_array), "open to all: {default:?}");
    assert_eq!((default.len(), closed.len()), (2, 1), "what is left is `helm test`");
}

#[test]
fn helm_can_read_the_log_of_the_test_pod_when_it_has_ended() {
    let objects = objects(&template(&tool("DEPLOY_HELM"), "quickstart", &[]).unwrap());
    let test = objects.iter().find(|object| object.kind() == "Pod").unwrap();
    let annotations = &test.value["metadata"]["annotations"];
    assert_eq!(annotations["helm.sh/hook"], "test");
    // With `hook-succeeded`, `helm test --logs` finds no pod: helm/helm#9098.
    assert_eq!(annotations["helm.sh/hook-delete-policy"], "before-hook-creation");
}

#[test]
fn the_store_is_moved_while_no_relay_runs_from_the_claim_that_the_stateful_set_left() {
    let rendered =
        |values: &str| objects(&template_as("relay", &tool("DEPLOY_HELM"), values, &[]).unwrap());
    let before = rendered("quickstart");
    let set = before.iter().find(|object| object.kind() == "StatefulSet").unwrap();
    let claim = format!("data-{}-0", set.name());
    let objects = rendered("postgres-move");
    let job = objects.iter().find(|object| object.kind() == "Job").unwrap();
    let (pod, _) = job.pod().unwrap();
    let arguments = pod.containers[0].args.as_ref().unwrap();
    let config = config(&objects);
    assert_eq!(arguments[0], "migrate-store");
    assert!(arguments.contains(&"--from=sqlite:/data/relay.db".to_owned()));
    assert!(config["store"]["postgres"].is_object());
    let volumes = pod.volumes.as_ref().unwrap();
    let mut claimed = volumes.iter().filter_map(|volume| volume.persistent_volume_claim.as_ref());
    assert_eq!(claimed.next().unwrap().claim_name, claim);
    assert_eq!(text(&config, "/server/listen"), "[::]:8080", "pods with IPv6 addresses");
}

#[test]
fn a_changed_configuration_restarts_the_pod_and_changed_labels_do_not() {
    let checksum = |arguments: &[&str]| {
        let objects = objects(&template(&tool("DEPLOY_HELM"), "quickstart", arguments).unwrap());
        let (_, meta) = relay_pod(&objects);
        text(meta, "/annotations/checksum~1config").to_owned()
    };
    let plain = checksum(&[]);
    assert_eq!(checksum(&["--set", "service.annotations.a=b"]), plain);
    assert_ne!(checksum(&["--set", "config.destinations[0].timeout=20s"]), plain);
}

#[test]
fn the_guide_shows_the_values_that_are_tested() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let values = read("deploy/helm/slack-soar-relay/ci/quickstart-values.yaml");
    let (_comment, values) = values.split_once('\n').unwrap();
    assert!(read("docs/kubernetes.md").contains(values), "docs/kubernetes.md is behind");
}

#[test]
fn the_guide_says_how_each_secret_is_rotated() {
    let guide = fs::read_to_string(root().join("docs/kubernetes.md")).unwrap();
    let (_, table) = guide.split_once("## Rotating secrets").unwrap();
    let (table, _) = table.split_once("## ").unwrap();
    for values in ["quickstart", "postgres"] {
        let config = config(&objects(&template(&tool("DEPLOY_HELM"), values, &[]).unwrap()));
        secret_references(&config, "", &mut |_, value| {
            let key = text(value, "/file").trim_start_matches("/secrets/");
            assert!(table.contains(&format!("`{key}`")), "nothing about {key}");
        });
    }
}

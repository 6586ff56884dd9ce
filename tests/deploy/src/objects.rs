//! Objects that Helm and kustomize render, as Kubernetes' own types.

use std::{path::Path, process::Command};

use gateway_api::httproutes::HttpRoute;
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    batch::v1::Job,
    core::v1::{ConfigMap, Namespace, Pod, PodSpec, Service, ServiceAccount},
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::harness::{root, run, tool};

/// The release and the namespace of every rendering.
pub(crate) const RELEASE: &str = "rel";
pub(crate) const NAMESPACE: &str = "relay";

/// The chart's `ci` files.
pub(crate) const CI: [&str; 5] =
    ["quickstart", "everything", "no-volume", "postgres", "postgres-move"];

/// An object as it was rendered and as its type, if Kubernetes' own packages have it.
pub(crate) struct Object {
    pub(crate) value: Value,
    pub(crate) typed: Typed,
}

pub(crate) enum Typed {
    StatefulSet(Box<StatefulSet>),
    Deployment(Box<Deployment>),
    Job(Box<Job>),
    Pod(Box<Pod>),
    ConfigMap(ConfigMap),
    Service(Box<Service>),
    ServiceAccount,
    NetworkPolicy(Box<NetworkPolicy>),
    Ingress,
    DisruptionBudget(PodDisruptionBudget),
    HttpRoute,
    Namespace,
    /// Object of another project, whose fields no type here describes.
    Foreign,
}

impl Object {
    fn new(value: Value) -> Self {
        let kind = (text(&value, "/apiVersion"), text(&value, "/kind"));
        let typed = match kind {
            ("apps/v1", "StatefulSet") => Typed::StatefulSet(parsed(&value)),
            ("apps/v1", "Deployment") => Typed::Deployment(parsed(&value)),
            ("policy/v1", "PodDisruptionBudget") => Typed::DisruptionBudget(*parsed(&value)),
            ("batch/v1", "Job") => Typed::Job(parsed(&value)),
            ("v1", "Pod") => Typed::Pod(parsed(&value)),
            ("v1", "ConfigMap") => Typed::ConfigMap(*parsed(&value)),
            ("v1", "Service") => Typed::Service(parsed(&value)),
            ("v1", "ServiceAccount") => {
                let account = parsed::<ServiceAccount>(&value);
                assert_eq!(account.automount_service_account_token, Some(false));
                Typed::ServiceAccount
            }
            ("v1", "Namespace") => {
                parsed::<Namespace>(&value);
                Typed::Namespace
            }
            ("networking.k8s.io/v1", "NetworkPolicy") => Typed::NetworkPolicy(parsed(&value)),
            ("networking.k8s.io/v1", "Ingress") => {
                parsed::<Ingress>(&value);
                Typed::Ingress
            }
            ("gateway.networking.k8s.io/v1", "HTTPRoute") => {
                // Unlike Kubernetes' own types, this one does not read what names it.
                let mut unnamed = value.clone();
                let fields = unnamed.as_object_mut().unwrap();
                fields.retain(|name, _| !["apiVersion", "kind"].contains(&name.as_str()));
                parsed::<HttpRoute>(&unnamed);
                Typed::HttpRoute
            }
            ("monitoring.coreos.com/v1", "PodMonitor" | "ServiceMonitor")
            | ("external-secrets.io/v1", "ExternalSecret") => Typed::Foreign,
            other => panic!("{other:?} should not be rendered"),
        };
        Self { value, typed }
    }

    pub(crate) fn name(&self) -> &str {
        text(&self.value, "/metadata/name")
    }

    pub(crate) fn kind(&self) -> &str {
        text(&self.value, "/kind")
    }

    /// Pod template of the object, with the pod's labels.
    pub(crate) fn pod(&self) -> Option<(&PodSpec, &Value)> {
        match &self.typed {
            Typed::StatefulSet(set) => {
                let template = &set.spec.as_ref()?.template;
                Some((template.spec.as_ref()?, &self.value["spec"]["template"]["metadata"]))
            }
            Typed::Deployment(deployment) => {
                let template = &deployment.spec.as_ref()?.template;
                Some((template.spec.as_ref()?, &self.value["spec"]["template"]["metadata"]))
            }
            Typed::Job(job) => {
                let template = &job.spec.as_ref()?.template;
                Some((template.spec.as_ref()?, &self.value["spec"]["template"]["metadata"]))
            }
            Typed::Pod(pod) => Some((pod.spec.as_ref()?, &self.value["metadata"])),
            Typed::ConfigMap(_)
            | Typed::Service(_)
            | Typed::ServiceAccount
            | Typed::NetworkPolicy(_)
            | Typed::Ingress
            | Typed::DisruptionBudget(_)
            | Typed::HttpRoute
            | Typed::Namespace
            | Typed::Foreign => None,
        }
    }
}

/// The string at a JSON pointer.
pub(crate) fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer}: {value}"))
}

/// The value as its type; a field that the type does not have is a misspelt one.
fn parsed<T: DeserializeOwned>(value: &Value) -> Box<T> {
    let mut ignored = Vec::new();
    let object = serde_ignored::deserialize(value, |path| ignored.push(path.to_string()))
        .unwrap_or_else(|error| panic!("{error}: {value:#}"));
    assert!(ignored.is_empty(), "no such field: {ignored:?}: {value:#}");
    Box::new(object)
}

/// The objects of a rendering.
pub(crate) fn objects(yaml: &str) -> Vec<Object> {
    let values: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    values.into_iter().filter(|value| !value.is_null()).map(Object::new).collect()
}

/// Renders the chart with one of its `ci` files and further arguments.
pub(crate) fn template(helm: &Path, values: &str, more: &[&str]) -> Result<String, String> {
    template_as(RELEASE, helm, values, more)
}

/// The same as another release.
pub(crate) fn template_as(
    release: &str,
    helm: &Path,
    values: &str,
    more: &[&str],
) -> Result<String, String> {
    let chart = root().join("deploy/helm/slack-soar-relay");
    let values = chart.join(format!("ci/{values}-values.yaml"));
    let mut command = Command::new(helm);
    command.args(["template", release]).arg(chart).args(["--namespace", NAMESPACE]);
    run(command.arg("--values").arg(values).args(more))
}

/// Each rendering that is checked: the chart with each `ci` file, and each overlay.
pub(crate) fn renderings() -> Vec<(&'static str, Vec<Object>)> {
    let helm = tool("DEPLOY_HELM");
    let mut renderings: Vec<_> = CI
        .into_iter()
        .map(|values| (values, objects(&template(&helm, values, &[]).unwrap())))
        .collect();
    for folder in ["base", "base-postgres", "overlays/example", "overlays/postgres"] {
        let path = root().join("deploy/kubernetes").join(folder);
        let yaml = run(Command::new(tool("DEPLOY_KUBECTL")).arg("kustomize").arg(path)).unwrap();
        renderings.push((folder, objects(&yaml)));
    }
    renderings
}

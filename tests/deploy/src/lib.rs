//! Checks of what deploys the relay: the chart and the plain manifests as Kubernetes' own types,
//! the image in a container, and a rolling restart behind nginx. `tests/deploy/run` builds and
//! installs what they need, and names it in the environment.

#[cfg(test)]
mod container;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod manifests;
#[cfg(test)]
mod objects;
#[cfg(test)]
mod rollout;

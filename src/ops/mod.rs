//! What operators and Kubernetes see: health and metrics, on a listener of their own.

pub mod health;

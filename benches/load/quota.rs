//! A share of a core for a process, as a container's CPU limit: by a control group of its own.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Time that a process may run in each 10 ms.
const RUN_US: u32 = 3_000;
const PERIOD_US: u32 = 10_000;

/// A process that is limited; it must have ended before this value does.
pub(crate) struct Quota(PathBuf);

impl Quota {
    /// # Errors
    /// Control groups are not there, or not for this user.
    pub(crate) fn on(pid: u32) -> io::Result<Self> {
        let (second, first) = (Path::new("/sys/fs/cgroup"), Path::new("/sys/fs/cgroup/cpu"));
        let is_first = first.exists();
        let folder = if is_first { first } else { second }.join(format!("relay-bench-{pid}"));
        fs::create_dir(&folder)?;
        let quota = Self(folder);
        if is_first {
            quota.set("cpu.cfs_period_us", &PERIOD_US.to_string())?;
            quota.set("cpu.cfs_quota_us", &RUN_US.to_string())?;
        } else {
            quota.set("cpu.max", &format!("{RUN_US} {PERIOD_US}"))?;
        }
        quota.set("cgroup.procs", &pid.to_string())?;
        Ok(quota)
    }

    fn set(&self, name: &str, value: &str) -> io::Result<()> {
        fs::write(self.0.join(name), value)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.0));
    }
}

//! What processes have used: processor time, time for which they waited for a processor, and how often they were woken.

use std::fs;
use std::ops::{Add, Sub};
use std::path::Path;

use anyhow::{Context, Result};
use weft_cluster::Process;

/// What a process has used since its start, or in a while. Linux only.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    /// Processor time of all its threads, in microseconds.
    pub(super) cpu_us: f64,
    /// How long its threads were ready and had no processor, in microseconds.
    pub(super) queued_us: f64,
    /// How often a thread has waited for something and was woken.
    pub(super) wakeups: f64,
}

impl Usage {
    /// What these processes have used, together.
    pub(super) fn of<'a>(processes: impl IntoIterator<Item = &'a Process>) -> Result<Self> {
        let mut sum = Self::default();
        for process in processes {
            let id = process.id().context("a process has ended")?;
            for task in fs::read_dir(format!("/proc/{id}/task"))? {
                // A thread may end meanwhile.
                sum = sum + of_thread(&task?.path()).unwrap_or_default();
            }
        }
        Ok(sum)
    }

    /// The same for one of `count`.
    pub(super) fn for_each(self, count: f64) -> Self {
        Self {
            cpu_us: self.cpu_us / count,
            queued_us: self.queued_us / count,
            wakeups: self.wakeups / count,
        }
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            cpu_us: self.cpu_us + other.cpu_us,
            queued_us: self.queued_us + other.queued_us,
            wakeups: self.wakeups + other.wakeups,
        }
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            cpu_us: (self.cpu_us - other.cpu_us).max(0.0),
            queued_us: (self.queued_us - other.queued_us).max(0.0),
            wakeups: (self.wakeups - other.wakeups).max(0.0),
        }
    }
}

fn of_thread(task: &Path) -> Option<Usage> {
    let times = fs::read_to_string(task.join("schedstat")).ok()?;
    let mut times = times.split_whitespace().map(str::parse::<f64>);
    let (cpu, queued) = (times.next()?.ok()?, times.next()?.ok()?);
    let status = fs::read_to_string(task.join("status")).ok()?;
    let switches = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    Some(Usage {
        cpu_us: cpu / 1e3,
        queued_us: queued / 1e3,
        wakeups: switches.trim().parse().ok()?,
    })
}

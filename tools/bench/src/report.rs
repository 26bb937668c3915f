//! What was measured: as a table for people and as JSON for programs.

use serde::Serialize;

use crate::process::Cpu;

/// One timed run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Run {
    /// From start to exit, in seconds.
    pub(crate) wall_s: f64,
    /// Processor time of the near end: the peer's command and all its children.
    pub(crate) near: Cpu,
    /// Processor time of the far end: the server that was talked to, and its children.
    pub(crate) far: Cpu,
    /// Bytes on the link, both ways, where the link is the run's own.
    pub(crate) link_bytes: Option<u64>,
}

/// How it went with one peer and workload.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// All runs ended well and the judge found the result right after each.
    Measured {
        /// In the order in which they ran.
        runs: Vec<Run>,
    },
    /// A run failed, or the result was wrong.
    Failed {
        /// What happened.
        why: String,
    },
    /// It cannot do this, or is not there.
    NotRun {
        /// Why.
        why: String,
    },
}

/// One row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) workload: String,
    pub(crate) peer: String,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// Everything about one call of the tool.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Date of the start.
    pub(crate) date: String,
    /// The tool's own command line.
    pub(crate) command: String,
    /// Cores, memory, kernel.
    pub(crate) machine: String,
    /// Versions of what ran.
    pub(crate) versions: Vec<String>,
    /// Between the ends.
    pub(crate) link: String,
    /// Full or small.
    pub(crate) size: String,
    pub(crate) rows: Vec<Row>,
    /// What else must be known: what makes a figure doubtful.
    pub(crate) notes: Vec<String>,
}

/// The middle of some numbers, the mean of both middles for an even count; 0 for none.
pub(crate) fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.into_iter().collect();
    numbers.sort_by(f64::total_cmp);
    let half = numbers.len() / 2;
    match numbers.len() {
        0 => 0.0,
        count if count % 2 == 1 => numbers[half],
        _ => f64::midpoint(numbers[half - 1], numbers[half]),
    }
}

impl Report {
    /// The row's medians, if it was measured: wall seconds, processor seconds.
    fn medians(&self, workload: &str, peer: &str) -> Option<(f64, f64)> {
        let row = self.rows.iter().find(|row| row.workload == workload && row.peer == peer)?;
        let Outcome::Measured { runs } = &row.outcome else { return None };
        let cpu = runs.iter().map(|run| run.near.total_s() + run.far.total_s());
        Some((median(runs.iter().map(|run| run.wall_s)), median(cpu)))
    }

    /// Whether nothing failed.
    pub(crate) fn is_good(&self) -> bool {
        !self.rows.iter().any(|row| matches!(row.outcome, Outcome::Failed { .. }))
    }

    /// Tables in Markdown. `reference` is the peer that the ratios are to.
    pub(crate) fn markdown(&self, reference: &str) -> String {
        let mut text = format!("{}, {}. Link: {}. Size: {}.\n", self.date, self.machine, self.link, self.size);
        text += &format!("Versions: {}.\nCommand: `{}`\n\n", self.versions.join("; "), self.command);
        text += &format!(
            "| workload | peer | runs | median s | min to max s | times faster than {reference} | near CPU s (user + system) \
             | far CPU s (user + system) | CPU by {reference}'s | MB on the link |\n|---|---|---|---|---|---|---|---|---|---|\n"
        );
        for row in &self.rows {
            if let Outcome::Measured { runs } = &row.outcome {
                text += &self.line(row, runs, reference);
            }
        }
        // One line for each peer and reason, with all the workloads that it holds for.
        let mut told: Vec<(String, Vec<&str>, String)> = Vec::new();
        for row in &self.rows {
            let (what, why) = match &row.outcome {
                Outcome::Measured { .. } => continue,
                Outcome::Failed { why } => ("FAILED", why),
                Outcome::NotRun { why } => ("not run", why),
            };
            let (head, why) = (format!("{what}: {}", row.peer), why.split_whitespace().collect::<Vec<_>>().join(" "));
            match told.iter_mut().find(|(other, _, its_why)| *other == head && *its_why == why) {
                Some((_, workloads, _)) => workloads.push(&row.workload),
                None => told.push((head, vec![&row.workload], why)),
            }
        }
        let told = told.into_iter().map(|(head, workloads, why)| format!("{head} ({}): {why}", workloads.join(", ")));
        let told: Vec<String> = told.chain(self.notes.iter().cloned()).collect();
        if !told.is_empty() {
            text += &format!("\n- {}\n", told.join("\n- "));
        }
        text
    }

    fn line(&self, row: &Row, runs: &[Run], reference: &str) -> String {
        let of = |number: fn(&Run) -> f64| median(runs.iter().map(number));
        let wall = runs.iter().map(|run| run.wall_s);
        let (min, max) = (wall.clone().fold(f64::INFINITY, f64::min), wall.fold(0.0, f64::max));
        let (median_s, cpu) = self.medians(&row.workload, &row.peer).unwrap_or_default();
        let by = self.medians(&row.workload, reference);
        let ratio = |number: Option<f64>| number.map_or_else(|| "–".to_owned(), |number| format!("{number:.2}"));
        let faster = ratio(by.map(|(reference_s, _)| reference_s / median_s));
        let cheaper =
            ratio(by.filter(|(_, reference_cpu)| *reference_cpu > 0.0).map(|(_, reference_cpu)| cpu / reference_cpu));
        let bytes: Option<Vec<f64>> = runs.iter().map(|run| run.link_bytes.map(|bytes| bytes as f64)).collect();
        let bytes = bytes.map_or_else(|| "–".to_owned(), |bytes| format!("{:.1}", median(bytes) / 1e6));
        format!(
            "| {} | {} | {} | {median_s:.2} | {min:.2} to {max:.2} | {faster} | {:.2} + {:.2} | {:.2} + {:.2} | {cheaper} | {bytes} |\n",
            row.workload,
            row.peer,
            runs.len(),
            of(|run| run.near.user_s),
            of(|run| run.near.system_s),
            of(|run| run.far.user_s),
            of(|run| run.far.system_s),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(peer: &str, seconds: &[f64]) -> Row {
        let cpu = Cpu { user_s: 1.0, system_s: 0.5 };
        let runs = seconds.iter().map(|&wall_s| Run { wall_s, near: cpu, far: cpu, link_bytes: None }).collect();
        Row { workload: "w".to_owned(), peer: peer.to_owned(), outcome: Outcome::Measured { runs } }
    }

    fn report(rows: Vec<Row>) -> Report {
        let text = String::new;
        let (versions, notes) = (Vec::new(), vec!["a note".to_owned()]);
        let (date, command, machine, link, size) = (text(), text(), text(), text(), text());
        Report { date, command, machine, versions, link, size, rows, notes }
    }

    #[test]
    fn medians_are_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([]), 0.0);
    }

    #[test]
    fn ratios_are_to_the_reference_and_nothing_is_left_out() {
        let mut rows = vec![row("ref", &[4.0, 5.0, 3.0]), row("fast", &[2.0, 1.0, 9.0])];
        rows.push(Row {
            workload: "w".into(),
            peer: "bad".into(),
            outcome: Outcome::Failed { why: "it broke".into() },
        });
        rows.push(Row { workload: "w".into(), peer: "no".into(), outcome: Outcome::NotRun { why: "absent".into() } });
        let report = report(rows);
        let text = report.markdown("ref");
        assert!(
            text.contains("| w | fast | 3 | 2.00 | 1.00 to 9.00 | 2.00 | 1.00 + 0.50 | 1.00 + 0.50 | 1.00 | – |"),
            "{text}"
        );
        for told in ["FAILED: bad (w): it broke", "not run: no (w): absent", "a note"] {
            assert!(text.contains(told), "{text}");
        }
        assert!(!report.is_good());
    }

    #[test]
    fn without_the_reference_there_is_no_ratio() {
        let text = report(vec![row("fast", &[2.0])]).markdown("ref");
        assert!(text.contains("| 2.00 to 2.00 | – |"), "{text}");
    }
}

//! `cargo xtask bench --verifier`: how many instructions each kernel's verifier looks at, program
//! by program. That is one boot of each kernel, and nothing is counted there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Deserialize;

use super::text::{table, whole};
use crate::setup::kernels::Series;
use crate::vm::{self, Lines, Request, Show};

const TIMEOUT: Duration = Duration::from_secs(900);
/// The kernel's own limit for one program (`BPF_COMPLEXITY_LIMIT_INSNS`).
const LIMIT: &str = "1,000,000";

/// What `sekimori doctor --json` prints, as far as it is of interest here.
#[derive(Debug, Deserialize)]
struct Report {
    kernel: String,
    features: Vec<Feature>,
}

#[derive(Debug, Deserialize)]
struct Feature {
    name: String,
    hook: String,
    detail: String,
}

/// Boots the kernels one after the other and prints the table, as Markdown.
///
/// # Errors
/// When a guest does not come up, or `doctor` prints no report there.
pub fn run(series: &[Series]) -> Result<()> {
    let reports = series.iter().map(|one| ask(&one.series)).collect::<Result<Vec<_>>>()?;
    print!("\n{}\nThe kernel takes at most {LIMIT} of one program.\n", compared(&reports));
    Ok(())
}

fn ask(kernel: &str) -> Result<Report> {
    println!("boot   linux {kernel} in a VM");
    let lines = Lines::default();
    let outcome = vm::boot(&Request {
        timeout: Some(TIMEOUT),
        release: true,
        command: ["sekimori", "doctor", "--json"].map(str::to_owned).to_vec(),
        ..Request::new(kernel.to_owned(), Vec::new(), Show::Kept(Arc::clone(&lines)))
    })?;
    let lines = lines.lock().map_err(|_| anyhow::anyhow!("the output was lost"))?;
    let report = lines.iter().find_map(|line| serde_json::from_str(line).ok());
    match (report, outcome.status) {
        (Some(report), 0) => Ok(report),
        (_, status) => bail!("doctor ended with {status} on {kernel}: {}", lines.join("\n")),
    }
}

/// A row for each program, a column for each kernel.
fn compared(reports: &[Report]) -> String {
    let mut rows: BTreeMap<(&str, &str), Vec<Option<u64>>> = BTreeMap::new();
    for (column, report) in reports.iter().enumerate() {
        for feature in &report.features {
            let row = rows.entry((&feature.hook, &feature.name)).or_default();
            row.resize(reports.len(), None);
            if let Some(cell) = row.get_mut(column) {
                *cell = verified(&feature.detail);
            }
        }
    }
    let cells = |row: &Vec<Option<u64>>| {
        let shown = |cell: &Option<u64>| cell.map_or("–".to_owned(), |it| whole(it as f64));
        row.iter().map(shown).collect::<Vec<_>>()
    };
    let rows: Vec<_> = rows
        .iter()
        .map(|((hook, name), row)| {
            let first = [format!("{hook} ({name})")];
            first.into_iter().chain(cells(row)).collect::<Vec<_>>()
        })
        .collect();
    let header: Vec<_> = std::iter::once("program".to_owned())
        .chain(reports.iter().map(|report| report.kernel.clone()))
        .collect();
    table(&header, &rows)
}

/// The number in `attached, N instructions verified`.
fn verified(detail: &str) -> Option<u64> {
    detail.split_whitespace().find_map(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::{Feature, Report, compared};

    #[test]
    fn each_kernel_has_a_column_and_a_missing_program_a_dash() {
        let report = |kernel: &str, features: &[(&str, &str)]| Report {
            kernel: kernel.to_owned(),
            features: features
                .iter()
                .map(|(hook, detail)| Feature {
                    name: "file.open".to_owned(),
                    hook: (*hook).to_owned(),
                    detail: (*detail).to_owned(),
                })
                .collect(),
        };
        let reports = [
            report("6.1", &[("lsm a", "attached, 12345 instructions verified")]),
            report("7", &[("lsm a", "attached, 7 instructions verified"), ("lsm b", "lost: no")]),
        ];
        let text = compared(&reports).replace(' ', "");
        let rows: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(rows, ["|lsma(file.open)|12,345|7|", "|lsmb(file.open)|–|–|"]);
    }
}

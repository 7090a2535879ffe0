//! What the monitor may cost, as data, and whether it keeps to that.

use serde::Serialize;

use super::figures::{BASE, FLOOR, Figures, MANY, Measured, STICK, State, TO_THE_SPOOL, USUAL};
use super::text::{signed, whole};

const OPEN: &str = "open+close, uninteresting file";
const RECORDED: &str = "open+close, recorded";
const PLAIN: &str = "write 4 KiB, plain file";
const ON_STICK: &str = "write 4 KiB, USB memory";
const LAUNCH: &str = "fork+exec+wait";
const CONNECT: &str = "TCP connect+accept+close";
const UDP: &str = "UDP send 1 KiB";
const TCP: &str = "TCP send 64 KiB+receive";

/// Instructions below which two runs of the same programs may differ.
const NOISE: f64 = 10.0;

/// What is looked at.
#[derive(Debug, Clone, Copy)]
enum Figure {
    /// Instructions that a setup adds to an operation in its own context.
    Own(&'static str, &'static str),
    /// The same, beyond those of an empty program on its hook.
    AboveFloor(&'static str, &'static str),
    /// With the agent's, until the record is in the spool.
    Spooled(&'static str),
    /// With the agent's and the collector's, until it is stored.
    Stored(&'static str),
    /// The most that the verifier looked at in one program.
    Verified,
    /// MiB of the agent that has nothing to do, and at most in floods.
    Resident,
    Peak,
    /// Percent of a CPU.
    Idle,
    /// Percent that an open takes longer with many rules than with few.
    ManyRules,
}

/// A figure and the most that it may be.
const MARKS: [(Figure, f64); 16] = [
    (Figure::Own(OPEN, USUAL), 350.0),
    (Figure::Own(PLAIN, USUAL), 0.0),
    (Figure::AboveFloor(PLAIN, STICK), 100.0),
    (Figure::AboveFloor(ON_STICK, STICK), 300.0),
    (Figure::Own(RECORDED, USUAL), 1_500.0),
    (Figure::Spooled(RECORDED), 9_000.0),
    (Figure::Stored(RECORDED), 30_000.0),
    (Figure::Spooled(LAUNCH), 25_000.0),
    (Figure::Spooled(CONNECT), 18_000.0),
    (Figure::Own(UDP, USUAL), 600.0),
    (Figure::Own(TCP, USUAL), 1_000.0),
    (Figure::Verified, 200_000.0),
    (Figure::Resident, 50.0),
    (Figure::Peak, 80.0),
    (Figure::Idle, 0.2),
    (Figure::ManyRules, 5.0),
];

/// One mark, as it came out.
#[derive(Debug, PartialEq, Serialize)]
pub struct Mark {
    /// What was looked at.
    pub name: String,
    /// The most that it may be.
    pub at_most: f64,
    /// What it is; nothing when it was not measured.
    pub measured: Option<f64>,
    /// Whether it keeps to the mark.
    pub ok: bool,
}

/// All marks.
pub fn of(figures: &Figures) -> Vec<Mark> {
    let mark = |(figure, at_most): (Figure, f64)| {
        let measured = figure.of(figures);
        let ok = measured.is_some_and(|it| it <= at_most + figure.tolerance());
        Mark { name: figure.name(), at_most, measured, ok }
    };
    MARKS.into_iter().map(mark).collect()
}

/// All marks as a table.
pub fn table(figures: &Figures) -> String {
    let number =
        |it: f64| if it.fract() != 0.0 && it.abs() < 10.0 { format!("{it:.2}") } else { whole(it) };
    let rows: Vec<_> = of(figures)
        .into_iter()
        .map(|Mark { name, at_most, measured, ok }| {
            let shown = |it: f64| if it < 0.0 { signed(it) } else { number(it) };
            let measured = measured.map_or_else(|| "not measured".to_owned(), shown);
            let verdict = if ok { "ok" } else { "missed" };
            vec![name, number(at_most), measured, verdict.to_owned()]
        })
        .collect();
    super::text::table(&["mark", "at most", "measured", ""].map(str::to_owned), &rows)
}

impl Figure {
    fn name(self) -> String {
        match self {
            Self::Own(operation, setup) if setup == USUAL => format!("{operation}: own context"),
            Self::Own(operation, setup) => format!("{operation}: own context, {setup}"),
            Self::AboveFloor(operation, setup) => {
                format!("{operation}: above an empty program, {setup}")
            }
            Self::Spooled(operation) => format!("{operation}: to the spool"),
            Self::Stored(operation) => format!("{operation}: to the store"),
            Self::Verified => "instructions verified in one program".to_owned(),
            Self::Resident => "MiB of the idle agent".to_owned(),
            Self::Peak => "MiB of the agent in floods".to_owned(),
            Self::Idle => "% of a CPU for the idle agent".to_owned(),
            Self::ManyRules => "% more for an open with 10,000 rules than with 10".to_owned(),
        }
    }

    const fn tolerance(self) -> f64 {
        match self {
            Self::Own(..) | Self::AboveFloor(..) => NOISE,
            _ => 0.0,
        }
    }

    fn of(self, figures: &Figures) -> Option<f64> {
        let own = |one: &Measured| one.kernel;
        match self {
            Self::Own(operation, setup) => figures.added(operation, setup, BASE, own),
            Self::AboveFloor(operation, setup) => {
                let floor = figures.of(operation, FLOOR)?.kernel;
                Some(figures.of(operation, setup)?.kernel - floor)
            }
            Self::Spooled(operation) => {
                figures.added(operation, TO_THE_SPOOL, BASE, |one| one.kernel + one.agent)
            }
            Self::Stored(operation) => figures.added(operation, USUAL, BASE, Measured::total),
            Self::ManyRules => {
                let few = figures.of(OPEN, USUAL)?.kernel;
                Some((figures.of(OPEN, MANY)?.kernel / few - 1.0) * 100.0)
            }
            Self::Verified | Self::Resident | Self::Peak | Self::Idle => {
                figures.states.iter().filter_map(|state| self.of_state(state)).reduce(f64::max)
            }
        }
    }

    fn of_state(self, state: &State) -> Option<f64> {
        let mib = |kib: u64| kib as f64 / 1024.0;
        match (self, state) {
            (Self::Verified, State::Verifier { verified, .. }) => {
                verified.iter().map(|(_, number)| *number as f64).reduce(f64::max)
            }
            (Self::Resident, State::Idle { setup, agent_resident_kib, .. }) if setup == USUAL => {
                Some(mib(*agent_resident_kib))
            }
            (Self::Idle, State::Idle { setup, agent_percent, .. }) if setup == USUAL => {
                Some(*agent_percent)
            }
            (Self::Peak, State::Flood { agent_peak_kib, .. }) => Some(mib(*agent_peak_kib)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Figure, Figures, MARKS, OPEN, PLAIN, STICK, of};

    fn line(setup: &str, operation: &str, kernel: f64) -> String {
        format!(
            r#"{{"setup":"{setup}","operation":"{operation}","count":1,"kernel":{kernel:.1},
            "agent":0.0,"collector":0.0,"lost":0}}"#
        )
    }

    #[test]
    fn what_is_above_its_mark_or_was_not_measured_is_missed() {
        let mut figures = Figures::default();
        figures.add(&[
            line("nothing", OPEN, 5000.0),
            line("10 rules", OPEN, 5361.0),
            line("nothing", PLAIN, 5000.0),
            line("10 rules", PLAIN, 5009.0),
            line("an empty program", PLAIN, 5190.0),
            line("10 rules, stick", PLAIN, 5290.0),
        ]);
        let marks = of(&figures);
        let find = |figure: Figure| marks.iter().find(|mark| mark.name == figure.name());
        let outcome = |figure| find(figure).map(|mark| (mark.measured, mark.ok));
        assert_eq!(outcome(Figure::Own(OPEN, "10 rules")), Some((Some(361.0), false)));
        assert_eq!(outcome(Figure::Own(PLAIN, "10 rules")), Some((Some(9.0), true)));
        assert_eq!(outcome(Figure::AboveFloor(PLAIN, STICK)), Some((Some(100.0), true)));
        assert_eq!(outcome(Figure::Idle), Some((None, false)));
        assert_eq!(marks.len(), MARKS.len());
    }
}

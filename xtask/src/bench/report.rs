//! The figures as tables and sentences.

use super::figures::{BASE, FLOOR, Figures, MANY, Measured, STICK, State, TO_THE_SPOOL, USUAL};
use super::marks;
use super::text::{mebibytes, signed, table, whole};

/// Everything, part by part.
pub fn report(figures: &Figures) -> String {
    let mut text = String::from("\nAdded in the operation's own context, in instructions:\n\n");
    text.push_str(&own(figures));
    text.push_str("\nAdded with the agent and the collector, 10 rules in force:\n\n");
    text.push_str(&all_together(figures));
    text.push('\n');
    figures.states.iter().for_each(|state| text.push_str(&format!("{}\n", sentence(state))));
    text.push_str("\nMarks:\n\n");
    text.push_str(&marks::table(figures));
    text
}

fn row_of(name: &str, cells: impl IntoIterator<Item = String>) -> Vec<String> {
    std::iter::once(name.to_owned()).chain(cells).collect()
}

fn header<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    names.into_iter().map(str::to_owned).collect()
}

fn own(figures: &Figures) -> String {
    let setups = [FLOOR, USUAL, "1000 rules", MANY, STICK];
    let rows: Vec<_> = figures
        .names()
        .into_iter()
        .filter_map(|name| {
            let base = figures.of(name, BASE)?.kernel;
            let added = setups.map(|setup| {
                let added = figures.added(name, setup, BASE, |one| one.kernel);
                added.map_or_else(String::new, signed)
            });
            Some(row_of(name, [whole(base)].into_iter().chain(added)))
        })
        .collect();
    table(&header(["operation", BASE].into_iter().chain(setups)), &rows)
}

fn all_together(figures: &Figures) -> String {
    let rows: Vec<_> = figures
        .names()
        .into_iter()
        .filter_map(|name| {
            let one = figures.of(name, USUAL).or_else(|| figures.of(name, STICK))?;
            let own = figures.added(name, &one.setup, BASE, |one| one.kernel)?;
            let agent_and_own = |one: &Measured| one.kernel + one.agent;
            let spooled = figures.added(name, TO_THE_SPOOL, BASE, agent_and_own);
            let total = figures.added(name, &one.setup, BASE, Measured::total)?;
            let lost = one.lost.map_or_else(String::new, |lost| whole(lost as f64));
            let spooled = spooled.map_or_else(String::new, signed);
            let parts = [signed(own), signed(one.agent), signed(one.collector), signed(total)];
            Some(row_of(name, parts.into_iter().chain([spooled, lost])))
        })
        .collect();
    let names = ["own context", "agent", "collector", "total", "own + agent to the spool", "lost"];
    table(&header(["operation"].into_iter().chain(names)), &rows)
}

fn sentence(state: &State) -> String {
    match state {
        State::Idle {
            setup,
            agent_percent,
            agent_resident_kib,
            agent_anonymous_kib,
            agent_peak_kib,
            ..
        } => format!(
            "{setup}: the idle agent takes {agent_percent:.2} % of a CPU and {} ({} of its own; at \
             most {} so far)",
            mebibytes(*agent_resident_kib),
            mebibytes(*agent_anonymous_kib),
            mebibytes(*agent_peak_kib)
        ),
        State::Flood { setup, opens, emitted, lost, agent_peak_kib } => format!(
            "{setup}: of a flood of {} recorded opens {} were reported and {} lost; agent at most \
             {}",
            whole(*opens as f64),
            whole(*emitted as f64),
            whole(*lost as f64),
            mebibytes(*agent_peak_kib)
        ),
        State::FirstLoss { setup, rounds } => {
            let Some(last) = rounds.last() else { return format!("{setup}: no flood was made") };
            let before = rounds.iter().rev().find(|round| round.lost == 0);
            let before = before.map_or(0, |round| round.writers);
            format!(
                "{setup}: {before} programs that open files as fast as they can, on the agent's CPU, \
                 lose nothing; of {} opens by {} such programs {} are lost, and counted",
                whole(last.opens as f64),
                last.writers,
                whole(last.lost as f64)
            )
        }
        State::Verifier { setup, verified } => {
            let most = verified.iter().take(3);
            let most = most.map(|(hook, number)| format!("{hook} {}", whole(*number as f64)));
            let most: Vec<String> = most.collect();
            format!("{setup}: most instructions verified: {}", most.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Figures, all_together, own};

    fn figures() -> Figures {
        let mut figures = Figures::default();
        let line = |setup: &str, kernel: u32, agent: u32, lost: &str| {
            format!(
                r#"{{"setup":"{setup}","operation":"stat","count":1,"kernel":{kernel}.0,
                "agent":{agent}.0,"collector":7.0,"lost":{lost}}}"#
            )
        };
        figures.add(&[line("nothing", 3000, 0, "null"), line("10 rules", 3120, 50, "0")]);
        figures
    }

    #[test]
    fn what_is_added_is_shown() {
        let last = |text: String| text.lines().last().unwrap_or_default().replace(' ', "");
        assert_eq!(last(own(&figures())), "|stat|3,000||+120||||");
        assert_eq!(last(all_together(&figures())), "|stat|+120|+50|+7|+177||0|");
    }
}

//! States to sets: what exactly a path carries, and what everything at or below it carries.

use std::collections::{BTreeSet, HashMap, HashSet};

use petgraph::{algo::kosaraju_scc, graph::NodeIndex, prelude::DiGraph};
use sekimori_abi::{
    limits::SETS_MAX,
    table::{COMPONENT_ANY, SET_NONE, SET_UNKNOWN, STATE_DEAD, State},
};

use super::automaton::{Accepted, Automaton};
use crate::limits::SET_MEMBERS_MAX;

/// One interned set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct SetKey {
    pub accepted: Accepted,
    /// A union in which not every path carries every label: no `unless` label can be relied on.
    /// Only told apart when an `unless` names one of the labels.
    pub mixed: bool,
}

/// All sets, and each state's.
#[derive(Debug)]
pub(crate) struct Sets {
    /// By number; 0 is the empty one, 1 (unknown) is empty too.
    pub keys: Vec<SetKey>,
    /// By state.
    pub states: Vec<State>,
    /// Sets that some path carries exactly; the others only stand below directories.
    pub exact: HashSet<u32>,
}

struct Interner {
    numbers: HashMap<SetKey, u32>,
    keys: Vec<SetKey>,
    members: usize,
}

impl Interner {
    fn new() -> Self {
        let numbers = HashMap::from([(SetKey::default(), SET_NONE)]);
        Self { numbers, keys: vec![SetKey::default(), SetKey::default()], members: 0 }
    }

    fn number(&mut self, key: SetKey) -> Result<u32, String> {
        if let Some(number) = self.numbers.get(&key) {
            return Ok(*number);
        }
        let number = self.keys.len() as u32;
        self.members += key.accepted.labels.len();
        if number >= SETS_MAX {
            return Err(format!("the paths carry more than {SETS_MAX} distinct sets of labels"));
        }
        if self.members > SET_MEMBERS_MAX {
            return Err(format!(
                "the distinct sets of labels hold more than {SET_MEMBERS_MAX} labels together"
            ));
        }
        self.keys.push(key.clone());
        self.numbers.insert(key, number);
        Ok(number)
    }
}

/// Gives every state its sets.
///
/// # Errors
/// A message when there are more sets than the kernel's tables hold.
pub(crate) fn assign(automaton: &Automaton, unless_labels: &HashSet<u32>) -> Result<Sets, String> {
    let mut interner = Interner::new();
    let mut states = Vec::with_capacity(automaton.accepted.len());
    let mut exact = HashSet::from([SET_NONE, SET_UNKNOWN]);
    for accepted in &automaton.accepted {
        let set = interner.number(SetKey { accepted: accepted.clone(), mixed: false })?;
        exact.insert(set);
        states.push(State { set, below: SET_NONE });
    }
    below(automaton, &mut states, &mut interner, unless_labels)?;
    Ok(Sets { keys: interner.keys, states, exact })
}

/// Fills `below`, from the states that lead nowhere towards the root: states that reach each other
/// share one union, so each union is made once.
fn below(
    automaton: &Automaton,
    states: &mut [State],
    interner: &mut Interner,
    unless_labels: &HashSet<u32>,
) -> Result<(), String> {
    let mut graph: DiGraph<(), (), u32> =
        DiGraph::with_capacity(states.len(), automaton.edges.len());
    for _ in 0..states.len() {
        graph.add_node(());
    }
    let mut has_any = vec![false; states.len()];
    for (from, component, to) in &automaton.edges {
        graph.add_edge(NodeIndex::new(*from as usize), NodeIndex::new(*to as usize), ());
        if *component == COMPONENT_ANY
            && let Some(has) = has_any.get_mut(*from as usize)
        {
            *has = true;
        }
    }
    let components = kosaraju_scc(&graph);
    let mut component_of = vec![0usize; states.len()];
    for (number, component) in components.iter().enumerate() {
        for node in component {
            if let Some(of) = component_of.get_mut(node.index()) {
                *of = number;
            }
        }
    }
    let same =
        |a: NodeIndex, b: NodeIndex| component_of.get(a.index()) == component_of.get(b.index());
    for component in components {
        let mut parts = BTreeSet::new();
        for node in &component {
            parts.extend(states.get(node.index()).map(|state| state.set));
            // Names without an edge lead to files that carry nothing.
            if !has_any.get(node.index()).copied().unwrap_or(false) {
                parts.insert(SET_NONE);
            }
            // Components come successors first; a successor in this one still has `below` 0, which
            // must not count as a path without labels.
            for next in graph.neighbors(*node).filter(|next| !same(*node, *next)) {
                parts.extend(states.get(next.index()).map(|state| state.below));
            }
        }
        let union = union(&parts, interner, unless_labels)?;
        for node in component {
            if let Some(state) = states.get_mut(node.index())
                && node.index() != STATE_DEAD as usize
            {
                state.below = union;
            }
        }
    }
    Ok(())
}

fn union(
    parts: &BTreeSet<u32>,
    interner: &mut Interner,
    unless_labels: &HashSet<u32>,
) -> Result<u32, String> {
    let mut key = SetKey::default();
    for part in parts {
        let Some(part) = interner.keys.get(*part as usize) else {
            continue;
        };
        key.accepted.labels.extend_from_slice(&part.accepted.labels);
        key.accepted.programs |= part.accepted.programs;
        key.mixed |= part.mixed;
    }
    key.accepted.labels.sort_unstable();
    key.accepted.labels.dedup();
    key.mixed |=
        parts.len() > 1 && key.accepted.labels.iter().any(|label| unless_labels.contains(label));
    interner.number(key)
}

impl Sets {
    /// No paths at all: the sets 0 and 1, and the states dead and root.
    pub fn empty() -> Self {
        Self {
            keys: vec![SetKey::default(), SetKey::default()],
            states: vec![State::default(), State::default()],
            exact: HashSet::from([SET_NONE, SET_UNKNOWN]),
        }
    }
}

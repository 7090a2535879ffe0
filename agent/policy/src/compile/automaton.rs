//! Path patterns to one deterministic automaton over components.
//!
//! All patterns go into one tree (shared beginnings are shared), which is a nondeterministic
//! automaton: from a node, a name may follow an exact branch, the `*` branch, or stay in a `**`
//! node. Subset construction makes it deterministic. The alphabet is the hashes of the names that
//! occur and "any other name"; an edge that leads where "any other" leads is left out.

use std::collections::HashMap;

use sekimori_abi::{
    limits::STATES_MAX,
    table::{COMPONENT_ANY, STATE_DEAD, STATE_ROOT},
};
use sekimori_decide::path::component_hash;

use crate::{
    limits::{EDGES_MAX, SUBSET_MEMBERS_MAX},
    pattern::{Component, Pattern},
};

/// What a matched pattern gives to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Member {
    /// Number of a label.
    Label(u32),
    /// Bit number of a program group.
    Program(u32),
}

/// Labels (sorted numbers) and program groups (bits) of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Accepted {
    pub labels: Vec<u32>,
    pub programs: u64,
}

/// State 0 is dead, state 1 the root directory.
#[derive(Debug)]
pub(crate) struct Automaton {
    /// (state, component, next), sorted.
    pub edges: Vec<(u32, u64, u32)>,
    /// By state.
    pub accepted: Vec<Accepted>,
}

#[derive(Default)]
struct Node {
    names: HashMap<u64, u32>,
    one: Option<u32>,
    deep: Option<u32>,
    /// Any name stays here.
    stays: bool,
    accepted: Accepted,
}

impl Node {
    /// A node that neither accepts nor leads on by a name adds nothing to a subset.
    fn matters(&self) -> bool {
        self.stays
            || self.one.is_some()
            || !self.names.is_empty()
            || !self.accepted.labels.is_empty()
            || self.accepted.programs != 0
    }
}

/// The tree of all patterns.
struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    fn new() -> Self {
        Self { nodes: vec![Node::default()] }
    }

    fn insert(&mut self, pattern: &Pattern, member: Member) {
        let mut at = 0u32;
        for component in pattern.components() {
            at = self.branch(at, component);
        }
        let Some(node) = self.nodes.get_mut(at as usize) else {
            return;
        };
        match member {
            Member::Label(label) => node.accepted.labels.push(label),
            Member::Program(bit) => node.accepted.programs |= 1 << bit,
        }
    }

    fn branch(&mut self, at: u32, component: &Component) -> u32 {
        let next = self.nodes.len() as u32;
        let Some(node) = self.nodes.get_mut(at as usize) else {
            return at;
        };
        let found = match component {
            Component::Name(name) => {
                // The pattern's parser refuses names that are too long to have a hash.
                let Some(hash) = component_hash(name.as_bytes()) else {
                    return at;
                };
                *node.names.entry(hash).or_insert(next)
            }
            Component::One => *node.one.get_or_insert(next),
            Component::Deep => *node.deep.get_or_insert(next),
        };
        if found == next {
            let stays = *component == Component::Deep;
            self.nodes.push(Node { stays, ..Node::default() });
        }
        found
    }

    /// Adds `node` and what it reaches without a name to `subset`.
    fn close(&self, node: u32, subset: &mut Vec<u32>) {
        let mut next = Some(node);
        while let Some(at) = next {
            let Some(node) = self.nodes.get(at as usize) else {
                return;
            };
            if node.matters() {
                subset.push(at);
            }
            next = node.deep;
        }
    }

    fn members<'a>(&'a self, subset: &'a [u32]) -> impl Iterator<Item = (u32, &'a Node)> {
        subset.iter().filter_map(|at| Some((*at, self.nodes.get(*at as usize)?)))
    }

    /// Where "any other name" leads from a subset.
    fn any(&self, subset: &[u32]) -> Vec<u32> {
        let mut target = Vec::new();
        for (at, node) in self.members(subset) {
            if node.stays {
                self.close(at, &mut target);
            }
            if let Some(one) = node.one {
                self.close(one, &mut target);
            }
        }
        tidy(target)
    }

    /// Where each name leads by its exact branches alone, sorted by name.
    fn named(&self, subset: &[u32]) -> Vec<(u64, u32)> {
        let mut named: Vec<(u64, u32)> = self
            .members(subset)
            .flat_map(|(_, node)| node.names.iter().map(|(hash, next)| (*hash, *next)))
            .collect();
        named.sort_unstable();
        named
    }

    fn accepted(&self, subset: &[u32]) -> Accepted {
        let mut accepted = Accepted::default();
        for (_, node) in self.members(subset) {
            accepted.labels.extend_from_slice(&node.accepted.labels);
            accepted.programs |= node.accepted.programs;
        }
        accepted.labels = tidy(accepted.labels);
        accepted
    }
}

fn tidy(mut list: Vec<u32>) -> Vec<u32> {
    list.sort_unstable();
    list.dedup();
    list
}

/// Subsets that have a number, in the order in which they were found.
struct Subsets {
    numbers: HashMap<Vec<u32>, u32>,
    list: Vec<Vec<u32>>,
    members: usize,
}

impl Subsets {
    fn number(&mut self, subset: Vec<u32>) -> Result<u32, String> {
        if let Some(number) = self.numbers.get(&subset) {
            return Ok(*number);
        }
        let number = self.list.len() as u32;
        self.members += subset.len();
        if number >= STATES_MAX || self.members > SUBSET_MEMBERS_MAX {
            return Err(format!(
                "the paths of labels and programs need more than {STATES_MAX} states"
            ));
        }
        self.list.push(subset.clone());
        self.numbers.insert(subset, number);
        Ok(number)
    }
}

/// Builds the automaton of all patterns.
///
/// # Errors
/// A message when it would be larger than the kernel's tables.
pub(crate) fn build<'a>(
    patterns: impl Iterator<Item = (&'a Pattern, Member)>,
) -> Result<Automaton, String> {
    let mut tree = Tree::new();
    for (pattern, member) in patterns {
        tree.insert(pattern, member);
    }
    let mut root = Vec::new();
    tree.close(0, &mut root);
    let root = tidy(root);
    let mut subsets = Subsets {
        numbers: HashMap::new(),
        list: vec![Vec::new(), root.clone()],
        members: root.len(),
    };
    subsets.numbers.insert(root, STATE_ROOT);
    // An empty root (a policy without paths) must not take the dead state's place.
    subsets.numbers.insert(Vec::new(), STATE_DEAD);
    let mut edges = Vec::new();
    let mut state = STATE_ROOT;
    while let Some(subset) = subsets.list.get(state as usize).cloned() {
        expand(&tree, state, &subset, &mut subsets, &mut edges)?;
        state += 1;
    }
    edges.sort_unstable();
    let accepted = subsets.list.iter().map(|subset| tree.accepted(subset)).collect();
    Ok(Automaton { edges, accepted })
}

fn expand(
    tree: &Tree,
    state: u32,
    subset: &[u32],
    subsets: &mut Subsets,
    edges: &mut Vec<(u32, u64, u32)>,
) -> Result<(), String> {
    let any = tree.any(subset);
    let other = subsets.number(any.clone())?;
    if other != STATE_DEAD {
        edges.push((state, COMPONENT_ANY, other));
    }
    let named = tree.named(subset);
    for group in named.chunk_by(|left, right| left.0 == right.0) {
        let Some((hash, _)) = group.first() else {
            continue;
        };
        let mut target = any.clone();
        for (_, next) in group {
            tree.close(*next, &mut target);
        }
        let next = subsets.number(tidy(target))?;
        if next != other {
            edges.push((state, *hash, next));
        }
        if edges.len() > EDGES_MAX {
            return Err(format!(
                "the paths of labels and programs need more than {EDGES_MAX} edges"
            ));
        }
    }
    Ok(())
}

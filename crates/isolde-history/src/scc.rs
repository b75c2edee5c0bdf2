//! Strongly connected components (Tarjan 1972), without recursion.

/// The arcs of a graph, those that leave a node side by side.
#[derive(Debug, Default)]
pub(crate) struct Arcs {
    starts: Vec<u32>,
    targets: Vec<u32>,
}

/// A node as the arrays store it.
///
/// Histories hold fewer than four thousand million transactions and moments: their events would not fit
/// into memory.
fn small(node: usize) -> u32 {
    u32::try_from(node).expect("a graph in memory has fewer nodes than that")
}

impl Arcs {
    /// The graph of `nodes` nodes with these arcs, whose order among those of one node is kept.
    pub fn new(nodes: usize, arcs: impl Iterator<Item = (usize, usize)> + Clone) -> Arcs {
        let mut starts = vec![0_u32; nodes + 1];
        arcs.clone().for_each(|(from, _)| starts[from + 1] += 1);
        for node in 0..nodes {
            starts[node + 1] += starts[node];
        }
        let mut targets = vec![0_u32; starts[nodes] as usize];
        let mut free = starts.clone();
        for (from, to) in arcs {
            targets[free[from] as usize] = small(to);
            free[from] += 1;
        }
        Arcs { starts, targets }
    }

    fn nodes(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// Where the arcs of a node lead.
    pub fn from(&self, node: usize) -> impl Iterator<Item = usize> {
        self.range(node).map(|at| self.targets[at] as usize)
    }

    fn range(&self, node: usize) -> std::ops::Range<usize> {
        self.starts[node] as usize..self.starts[node + 1] as usize
    }

    /// The component of each node. A component has a larger number than those that it leads to.
    pub fn components(&self) -> Components {
        let mut tarjan = Tarjan::new(self.nodes());
        for root in 0..self.nodes() {
            if tarjan.index[root] == UNSEEN {
                tarjan.visit(root, self);
            }
        }
        Components { of: tarjan.component, count: tarjan.count as usize }
    }
}

/// Which component each node belongs to.
#[derive(Debug)]
pub(crate) struct Components {
    of: Vec<u32>,
    /// How many components there are.
    pub count: usize,
}

impl Components {
    pub fn of(&self, node: usize) -> usize {
        self.of[node] as usize
    }

    /// The members below `size` of each component that has at least two such members, sorted.
    pub fn groups(&self, size: usize) -> Vec<Vec<usize>> {
        let mut members = vec![0_u32; self.count];
        self.of[..size].iter().for_each(|component| members[*component as usize] += 1);
        let mut places = vec![UNSEEN; self.count];
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for node in 0..size {
            let component = self.of(node);
            if members[component] < 2 {
                continue;
            }
            if places[component] == UNSEEN {
                places[component] = small(groups.len());
                groups.push(Vec::with_capacity(members[component] as usize));
            }
            groups[places[component] as usize].push(node);
        }
        groups
    }
}

const UNSEEN: u32 = u32::MAX;

struct Tarjan {
    index: Vec<u32>,
    low: Vec<u32>,
    component: Vec<u32>,
    open: Vec<u32>,
    next: u32,
    count: u32,
}

impl Tarjan {
    fn new(nodes: usize) -> Tarjan {
        let unseen = || vec![UNSEEN; nodes];
        Tarjan { index: unseen(), low: unseen(), component: unseen(), open: Vec::new(), next: 0, count: 0 }
    }

    fn visit(&mut self, root: usize, arcs: &Arcs) {
        let mut path = vec![(root, arcs.range(root))];
        self.enter(root);
        while let Some((node, rest)) = path.last_mut() {
            let node = *node;
            if let Some(at) = rest.next() {
                let to = arcs.targets[at] as usize;
                if self.index[to] == UNSEEN {
                    self.enter(to);
                    path.push((to, arcs.range(to)));
                } else if self.component[to] == UNSEEN {
                    self.low[node] = self.low[node].min(self.index[to]);
                }
                continue;
            }
            path.pop();
            if let Some((parent, _)) = path.last() {
                self.low[*parent] = self.low[*parent].min(self.low[node]);
            }
            self.leave(node);
        }
    }

    fn enter(&mut self, node: usize) {
        self.index[node] = self.next;
        self.low[node] = self.next;
        self.next += 1;
        self.open.push(small(node));
    }

    /// Closes the component of a node that is the first of its component.
    fn leave(&mut self, node: usize) {
        if self.low[node] != self.index[node] {
            return;
        }
        while let Some(member) = self.open.pop() {
            self.component[member as usize] = self.count;
            if member as usize == node {
                break;
            }
        }
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(nodes: usize, arcs: &[(usize, usize)]) -> Vec<Vec<usize>> {
        Arcs::new(nodes, arcs.iter().copied()).components().groups(nodes)
    }

    #[test]
    fn those_that_reach_each_other_are_one_component() {
        assert_eq!(groups(0, &[]), Vec::<Vec<usize>>::new());
        assert_eq!(groups(5, &[(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 3)]), [vec![0, 1, 2], vec![3, 4]]);
        assert!(groups(3, &[(0, 1), (1, 2), (0, 2)]).is_empty());
    }

    #[test]
    fn a_component_has_a_larger_number_than_those_it_leads_to() {
        let components = Arcs::new(4, [(2, 1), (1, 0), (0, 3), (1, 3)].into_iter()).components();
        assert!(components.of(2) > components.of(1));
        assert!(components.of(1) > components.of(0) && components.of(0) > components.of(3));
    }

    #[test]
    fn a_long_chain_needs_no_deep_stack() {
        let nodes = 1_000_000;
        let ring = (0..nodes).map(|node| (node, (node + 1) % nodes));
        assert_eq!(Arcs::new(nodes, ring).components().count, 1);
    }
}

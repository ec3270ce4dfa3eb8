//! `Ledger`: who keeps which scope relaxed, and why; speaks up only when that changes what is in force.

use std::{collections::BTreeMap, time::Duration};

use crate::{Action, Family, Scope};

/// Names one reason to relax a scope.
pub(crate) type Key = u64;

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    scopes: BTreeMap<Scope, BTreeMap<Key, (Duration, Family)>>,
}

impl Ledger {
    /// Adds a reason; the action that follows, if what is in force changes.
    pub(crate) fn acquire(
        &mut self,
        scope: &Scope,
        key: Key,
        floor: Duration,
        cause: Family,
    ) -> Option<Action> {
        self.change(scope, |reasons| {
            reasons.insert(key, (floor, cause));
        })
    }

    /// Takes a reason away.
    pub(crate) fn release(&mut self, scope: &Scope, key: Key) -> Option<Action> {
        self.change(scope, |reasons| {
            reasons.remove(&key);
        })
    }

    /// Ends all reasons of a scope. A connection that has gone was a lane's, which goes on with another one and would stay
    /// relaxed for ever.
    pub(crate) fn forget(&mut self, scope: &Scope) -> Option<Action> {
        self.scopes.remove(scope).map(|_reasons| Action::Restore { scope: scope.clone() })
    }

    pub(crate) fn len(&self) -> usize {
        self.scopes.len()
    }

    fn change(
        &mut self,
        scope: &Scope,
        edit: impl FnOnce(&mut BTreeMap<Key, (Duration, Family)>),
    ) -> Option<Action> {
        let reasons = self.scopes.entry(scope.clone()).or_default();
        let before = in_force(reasons);
        edit(reasons);
        let after = in_force(reasons);
        if reasons.is_empty() {
            self.scopes.remove(scope);
        }
        let scope = scope.clone();
        match after {
            _ if before == after => None,
            Some((floor, cause)) => Some(Action::Relax { scope, floor, cause }),
            None => Some(Action::Restore { scope }),
        }
    }
}

/// The longest floor, with the latest cause.
fn in_force(reasons: &BTreeMap<Key, (Duration, Family)>) -> Option<(Duration, Family)> {
    let floor = reasons.values().map(|(floor, _)| *floor).max()?;
    let (_, (_, cause)) = reasons.last_key_value()?;
    Some((floor, *cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConnId;

    #[test]
    fn the_last_reason_to_go_restores() {
        let mut ledger = Ledger::default();
        let scope = Scope::Conn(ConnId(1));
        let floor = Duration::from_secs(10);
        let relax = |cause| Some(Action::Relax { scope: scope.clone(), floor, cause });
        assert_eq!(ledger.acquire(&scope, 1, floor, Family::Migration), relax(Family::Migration));
        assert_eq!(ledger.acquire(&scope, 2, floor, Family::Migration), None);
        assert_eq!(ledger.acquire(&scope, 3, floor, Family::Moving), relax(Family::Moving));
        assert_eq!(ledger.release(&scope, 1), None);
        assert_eq!(ledger.release(&scope, 3), relax(Family::Migration));
        assert_eq!(ledger.release(&scope, 3), None);
        assert_eq!(ledger.release(&scope, 2), Some(Action::Restore { scope: scope.clone() }));
        assert_eq!(ledger.release(&scope, 2), None);
        assert_eq!(ledger.len(), 0);
    }
}

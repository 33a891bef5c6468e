//! Whether an index adds up: every count and table in it is told from the entries a second time.
//!
//! Nothing here changes the index, and nothing should ever be found. Looks at everything, so it is
//! for tests and for whoever looks into a store, not for requests. Whether the packs that are named
//! are there is the store's to say.

use super::Held;
use super::Index;
use super::Owner;
use super::Segments;
use super::named;
use crate::rules::address::Location;
use crate::rules::address::PackId;
use crate::rules::selecting::ALIKE;
use hashbrown::HashMap;
use hashbrown::HashSet;

impl Index {
    /// Says what does not add up, each as a sentence: bodies and those who refer to them, bytes
    /// alive and the sum of what is stored, the tables and what they lead to.
    pub fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        self.check_keys(&mut wrong);
        self.check_bodies(&mut wrong);
        self.check_large(&mut wrong);
        self.check_live(&mut wrong);
        self.check_lists(&mut wrong);
        self.check_queues(&mut wrong);
        wrong
    }

    fn check_keys(&self, wrong: &mut Vec<String>) {
        let mut variants = HashSet::new();
        for (id, entry) in self.entries.iter() {
            let times = self.chain(entry.key).filter(|(at, _)| *at == id).count();
            if times != 1 {
                wrong.push(format!("entry {id} is {times} times under its key"));
            }
            if !variants.insert((entry.key, entry.variant, entry.vary)) {
                wrong.push(format!("entry {id} is a variant that another one is too"));
            }
        }
        let (entries, keys) = (self.entries.len(), self.keys.len());
        if entries != keys {
            wrong.push(format!("{keys} keys lead to {entries} entries"));
        }
    }

    fn check_bodies(&self, wrong: &mut Vec<String>) {
        let mut references: HashMap<u32, u32> = HashMap::new();
        let mut owners: Vec<Owner> = Vec::new();
        for (id, entry) in self.entries.iter() {
            match entry.held {
                Held::Nothing => {}
                Held::Behind { .. } => owners.push(Owner::Entry(id)),
                Held::Apart(body) => *references.entry(body).or_default() += 1,
            }
        }
        for (id, body) in self.bodies.iter() {
            owners.push(Owner::Body(id));
            let (said, are) = (body.references.get(), references.remove(&id).unwrap_or(0));
            if said != are {
                wrong.push(format!("body {id} counts {said} references and has {are}"));
            }
        }
        for (body, are) in references {
            wrong.push(format!("{are} entries refer to body {body}, which is gone"));
        }
        for owner in &owners {
            let name = named(&self.entries, &self.bodies, owner.item()).map(|(name, _)| name);
            if name.and_then(|name| self.owner(name)) != Some(*owner) {
                wrong.push(format!("{owner:?} is not found by its name"));
            }
        }
        let (are, names) = (owners.len(), self.names.len());
        if are != names {
            wrong.push(format!("{names} names lead to {are} bodies"));
        }
    }

    fn check_large(&self, wrong: &mut Vec<String>) {
        let mut used: HashSet<(PackId, u32)> = HashSet::new();
        for (id, body) in self.bodies.iter() {
            let is_large = matches!(body.segments, Segments::Many);
            if is_large != self.large.contains_key(&id) {
                wrong.push(format!("the segments of body {id} are in the wrong table"));
            }
            if is_large {
                used.extend(self.locations(id).map(|at| (at.pack, id)));
            }
        }
        for id in self
            .large
            .keys()
            .filter(|id| self.bodies.get(**id).is_none())
        {
            wrong.push(format!("there are segments of body {id}, which is gone"));
        }
        let said = self.large_in.iter();
        let said: HashSet<(PackId, u32)> = said
            .flat_map(|(pack, ids)| ids.iter().map(|id| (*pack, *id)))
            .collect();
        for (pack, id) in said.symmetric_difference(&used) {
            wrong.push(format!(
                "that body {id} uses {pack:?} is said or true, not both"
            ));
        }
        for (pack, _) in self.large_in.iter().filter(|(_, ids)| ids.is_empty()) {
            wrong.push(format!(
                "{pack:?} is in the table of large bodies without one"
            ));
        }
    }

    fn check_live(&self, wrong: &mut Vec<String>) {
        let mut live: HashMap<PackId, u64> = HashMap::new();
        let mut add = |at: Location| *live.entry(at.pack).or_default() += u64::from(at.bytes);
        for (_, entry) in self.entries.iter() {
            add(entry.head.location());
            entry.behind().into_iter().for_each(&mut add);
        }
        for (id, _) in self.bodies.iter() {
            self.locations(id).for_each(&mut add);
        }
        let total: u64 = live.values().sum();
        if total != self.live_bytes {
            wrong.push(format!("{} bytes live are {total}", self.live_bytes));
        }
        for (pack, said) in &self.live {
            let is = live.remove(pack).unwrap_or(0);
            if *said != is || is == 0 {
                wrong.push(format!("{said} bytes live in {pack:?} are {is}"));
            }
        }
        for (pack, is) in live {
            wrong.push(format!("no bytes live in {pack:?} are {is}"));
        }
    }

    fn check_lists(&self, wrong: &mut Vec<String>) {
        let mut uses = vec![0_u32; self.varies.len()];
        let mut kin = 0;
        for (id, entry) in self.entries.iter() {
            match uses.get_mut(usize::from(entry.vary.get()) - 1) {
                Some(uses) => *uses += 1,
                None => wrong.push(format!("entry {id} varies by a list that is gone")),
            }
            kin += usize::from(self.vary(entry).contains(&ALIKE));
        }
        for (place, (fields, uses)) in self.varies.iter().zip(uses).enumerate() {
            if fields.entries != uses {
                let said = fields.entries;
                wrong.push(format!("list {place} counts {said} entries and has {uses}"));
            }
            if self.vary_places.get(&fields.names) != Some(&place) {
                wrong.push(format!("list {place} is not found by its names"));
            }
        }
        if kin != self.kin {
            wrong.push(format!("{} kin are {kin}", self.kin));
        }
    }

    fn check_queues(&self, wrong: &mut Vec<String>) {
        for (id, _) in self
            .entries
            .iter()
            .filter(|(id, _)| !self.queues.holds(*id))
        {
            wrong.push(format!("entry {id} is in no queue, so it is never evicted"));
        }
        let (entries, queued) = (self.entries.len(), self.queues.count());
        if entries != queued {
            wrong.push(format!("{queued} in the queues are {entries} entries"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::put;
    use super::*;
    use crate::rules::address::PackId;

    /// What a check says of an index that `spoil` has broken.
    fn said(spoil: impl Fn(&mut Index)) -> String {
        let mut index = Index::new();
        index.insert(&put(1, 1, b"shared")).unwrap();
        index.insert(&put(2, 2, b"shared")).unwrap();
        index.insert(&put(3, 3, b"own")).unwrap();
        assert_eq!(index.check(), [""; 0]);
        spoil(&mut index);
        index.check().join(", ")
    }

    #[test]
    fn what_does_not_add_up_is_said() {
        let lost = said(|index| assert!(index.bodies.remove(0).is_some()));
        assert!(
            lost.contains("2 entries refer to body 0, which is gone"),
            "{lost}"
        );
        let counted =
            said(|index| index.bodies.get_mut(0).unwrap().references = 3.try_into().unwrap());
        assert!(
            counted.contains("body 0 counts 3 references and has 2"),
            "{counted}"
        );
        let live = said(|index| *index.live.get_mut(&PackId(1)).unwrap() = 7);
        assert!(live.contains("7 bytes live in PackId(1) are"), "{live}");
        let total = said(|index| index.live_bytes += 1);
        assert!(total.contains("bytes live are"), "{total}");
        let queued = said(|index| index.queues.remove(2));
        assert!(queued.contains("entry 2 is in no queue"), "{queued}");
        let entry = said(|index| assert!(index.entries.remove(2).is_some()));
        assert!(entry.contains("3 keys lead to 2 entries"), "{entry}");
        let large = said(|index| drop(index.large_in.insert(PackId(4), [9].into_iter().collect())));
        assert!(large.contains("body 9 uses PackId(4)"), "{large}");
    }
}

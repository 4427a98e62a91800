//! A list of document ids in one piece of memory, because a large write has as many ids as documents.

/// Document ids, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    text: String,
    /// The end of each id in `text`.
    ends: Vec<usize>,
}

impl Ids {
    /// Appends an id.
    pub fn push(&mut self, id: &str) {
        self.text.push_str(id);
        self.ends.push(self.text.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All ids, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let id = self.text.get(start..*end).unwrap_or_default();
            start = *end;
            id
        })
    }
}

impl<T: AsRef<str>> Extend<T> for Ids {
    fn extend<I: IntoIterator<Item = T>>(&mut self, ids: I) {
        for id in ids {
            self.push(id.as_ref());
        }
    }
}

impl<T: AsRef<str>> FromIterator<T> for Ids {
    fn from_iter<I: IntoIterator<Item = T>>(ids: I) -> Self {
        let mut all = Self::default();
        all.extend(ids);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_as_they_were_and_in_their_order() {
        let mut ids = Ids::default();
        assert!(ids.is_empty() && ids.iter().next().is_none());
        ids.extend(["b", "", "é-1"]);
        ids.push("b");
        assert_eq!(ids.iter().collect::<Vec<_>>(), ["b", "", "é-1", "b"]);
        assert_eq!(ids.len(), 4);
    }
}

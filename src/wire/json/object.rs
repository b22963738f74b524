use super::Value;

/// A JSON object that keeps the order of its members. A key occurs once; as in Python, the last value given wins.
#[derive(Debug, Clone, Default)]
pub struct Object(Vec<(String, Value)>);

impl Object {
    /// An object without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub(in crate::wire) fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.0.iter_mut().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Whether `key` is there, be it `null`.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Sets `key`, in its old place if it has one, and returns the old value.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        if let Some(old) = self.get_mut(&key) {
            return Some(std::mem::replace(old, value));
        }
        self.0.push((key, value));
        None
    }

    /// The same object with `key` set.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.insert(key, value);
        self
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let index = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(index).1)
    }

    /// The members in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The keys in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// The same object with every member of `others` set.
    pub(in crate::wire) fn with_all(self, others: &Self) -> Self {
        if others.is_empty() {
            return self;
        }
        self.0.into_iter().chain(others.0.iter().cloned()).collect()
    }

    /// Positions of the members, sorted by key and then by position.
    fn sorted(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.0.len()).collect();
        order.sort_by(|&a, &b| self.0[a].0.cmp(&self.0[b].0));
        order
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Object {
    /// Takes time `n log n`, also for keys chosen by an attacker.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(members: I) -> Self {
        let mut object = Self(members.into_iter().map(|(key, value)| (key.into(), value.into())).collect());
        let order = object.sorted();
        let same: Vec<&[usize]> = order.chunk_by(|&a, &b| object.0[a].0 == object.0[b].0).collect();
        let mut superseded = Vec::new();
        for positions in same {
            if let [first, .., last] = *positions {
                object.0.swap(first, last);
                superseded.extend_from_slice(&positions[1..]);
            }
        }
        if !superseded.is_empty() {
            superseded.sort_unstable();
            let mut index = 0;
            object.0.retain(|_| {
                index += 1;
                superseded.binary_search(&(index - 1)).is_err()
            });
        }
        object
    }
}

impl IntoIterator for Object {
    type Item = (String, Value);
    type IntoIter = std::vec::IntoIter<(String, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.sorted().into_iter().zip(other.sorted()).all(|(a, b)| self.0[a] == other.0[b])
    }
}

impl Eq for Object {}

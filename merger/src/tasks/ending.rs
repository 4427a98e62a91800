//! What must be done about a task's end before anybody can know of it.

/// Hears of ends before clients do, so that nothing is answered afterwards by what was true before.
pub trait BeforeEnd: Send + Sync + 'static {
    /// A task of this kind and index is about to be seen as ended. The registry is locked meanwhile: this neither waits nor asks the
    /// registry.
    fn ends(&self, kind: &str, index_uid: Option<&str>);

    /// The key of an entry without a value that is stored together with the end, for those who watch the store.
    fn told_with(&self, kind: &str, index_uid: Option<&str>) -> Option<String>;
}

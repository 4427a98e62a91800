//! Why a node is not trusted, in words.

/// Why a node is not trusted that has as many tasks, but different ones.
pub(crate) const OTHER_DISK: &str =
    "a task that it had is another one now: its disk is not the one that it was";

/// Why a node whose newest task is older than its mark is not trusted.
pub(crate) fn went_back(newest: Option<u32>, mark: Option<u32>) -> String {
    let told = |uid: Option<u32>| uid.map_or("none".to_owned(), |uid| uid.to_string());
    format!(
        "its newest task is {}, and {} was acknowledged: its disk is empty or an older one",
        told(newest),
        told(mark)
    )
}

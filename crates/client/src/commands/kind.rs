//! Which options a command has, as the `K` of [`Call`](crate::Call), [`Pipeline`](crate::Pipeline) and
//! [`Transaction`](crate::Transaction). There are no values of these types.

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident)+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug)]
        #[non_exhaustive]
        pub enum $kind {}
    )+ };
}

kinds! {
    /// `COPY`, `RESTORE`.
    Copy
    /// `XRANGE`, `XREVRANGE`, `XAUTOCLAIM`.
    Count
    /// `EXPIRE`, `PEXPIRE`, `EXPIREAT`, `PEXPIREAT`.
    Expire
    /// `GETEX`.
    GetEx
    /// `XGROUP CREATE`.
    Group
    /// `ZRANGE`.
    Range
    /// `SCAN`, `HSCAN`, `SSCAN`, `ZSCAN`.
    Scan
    /// `ZDIFF`, `ZINTER`, `ZUNION`.
    Scores
    /// `SET`.
    Set
}

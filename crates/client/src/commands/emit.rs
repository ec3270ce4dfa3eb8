//! Turns the tables of commands into methods: each command is written once, each kind of handle gets it.

/// Functions that make the commands, for the methods of every handle.
macro_rules! builders {
    ($(
        $(#[doc = $doc:literal])+
        [$wire:literal since $since:literal, $cost:literal, example $example:literal]
        fn $method:ident $(<$t:ident>)? ($($arg:ident: $ty:ty),* $(,)?) -> $reply:ty $(, $kind:ty)? = $body:expr;
    )+) => { $(
        pub(crate) fn $method($($arg: $ty),*) -> Command {
            $body
        }
    )+ };
}

/// Methods of [`Client`](crate::Client), with examples.
macro_rules! client_methods {
    ($(
        $(#[doc = $doc:literal])+
        [$wire:literal since $since:literal, $cost:literal, example $example:literal]
        fn $method:ident $(<$t:ident>)? ($($arg:ident: $ty:ty),* $(,)?) -> $reply:ty $(, $kind:ty)? = $body:expr;
    )+) => {
        impl Client { $(
            $(#[doc = $doc])+
            #[doc = ""]
            #[doc = concat!("`", $wire, "`, since ", $since, ", ", $cost, ".")]
            #[doc = ""]
            #[doc = "```no_run"]
            #[doc = "# use evenkeel_client::Client;"]
            #[doc = "# async fn run(client: &Client) -> Result<(), evenkeel_client::Error> {"]
            #[doc = $example]
            #[doc = "# Ok(()) }"]
            #[doc = "```"]
            pub fn $method $(<$t: FromReply>)? (&self, $($arg: $ty),*) -> Call<'_, $reply $(, $kind)?> {
                Call::new(self.target(), build::$method($($arg),*))
            }
        )+ }
    };
}

/// Methods of [`Lease`](crate::Lease).
macro_rules! lease_methods {
    ($(
        $(#[doc = $doc:literal])+
        [$wire:literal since $since:literal, $cost:literal, example $example:literal]
        fn $method:ident $(<$t:ident>)? ($($arg:ident: $ty:ty),* $(,)?) -> $reply:ty $(, $kind:ty)? = $body:expr;
    )+) => {
        impl Lease { $(
            $(#[doc = $doc])+
            #[doc = ""]
            #[doc = concat!("`", $wire, "`, since ", $since, ", ", $cost, ".")]
            pub fn $method $(<$t: FromReply>)? (&mut self, $($arg: $ty),*) -> Call<'_, $reply $(, $kind)?> {
                Call::new(self.target(), build::$method($($arg),*))
            }
        )+ }
    };
}

/// Methods of [`Pipeline`](crate::Pipeline).
macro_rules! pipeline_methods {
    ($(
        $(#[doc = $doc:literal])+
        [$wire:literal since $since:literal, $cost:literal, example $example:literal]
        fn $method:ident $(<$t:ident>)? ($($arg:ident: $ty:ty),* $(,)?) -> $reply:ty $(, $kind:ty)? = $body:expr;
    )+) => {
        impl<'a, R, K> Pipeline<'a, R, K> { $(
            $(#[doc = $doc])+
            #[doc = ""]
            #[doc = concat!("`", $wire, "`, since ", $since, ", ", $cost, ".")]
            pub fn $method $(<$t: FromReply>)? (
                self,
                $($arg: $ty),*
            ) -> Pipeline<'a, <R as Append<$reply>>::Out $(, $kind)?>
            where
                R: Append<$reply>,
            {
                self.then(build::$method($($arg),*))
            }
        )+ }
    };
}

/// Methods of [`Transaction`](crate::Transaction).
macro_rules! transaction_methods {
    ($(
        $(#[doc = $doc:literal])+
        [$wire:literal since $since:literal, $cost:literal, example $example:literal]
        fn $method:ident $(<$t:ident>)? ($($arg:ident: $ty:ty),* $(,)?) -> $reply:ty $(, $kind:ty)? = $body:expr;
    )+) => {
        impl<'a, R, K, W> Transaction<'a, R, K, W> { $(
            $(#[doc = $doc])+
            #[doc = ""]
            #[doc = concat!("`", $wire, "`, since ", $since, ", ", $cost, ".")]
            pub fn $method $(<$t: FromReply>)? (
                self,
                $($arg: $ty),*
            ) -> Transaction<'a, <R as Append<$reply>>::Out, kind_or_none!($($kind)?), W>
            where
                R: Append<$reply>,
            {
                self.then(build::$method($($arg),*))
            }
        )+ }
    };
}

macro_rules! kind_or_none {
    () => {
        ()
    };
    ($kind:ty) => {
        $kind
    };
}

/// Methods of [`Batch`](crate::Batch), whose replies have no types of their own.
macro_rules! batch_methods {
    ($(
        $(#[doc = $doc:literal])+
        [$wire:literal since $since:literal, $cost:literal, example $example:literal]
        fn $method:ident $(<$t:ident>)? ($($arg:ident: $ty:ty),* $(,)?) -> $reply:ty $(, $kind:ty)? = $body:expr;
    )+) => {
        impl Batch<'_> { $(
            $(#[doc = $doc])+
            #[doc = ""]
            #[doc = concat!("`", $wire, "`, since ", $since, ", ", $cost, ".")]
            pub fn $method(&mut self, $($arg: $ty),*) -> &mut Self {
                self.push(build::$method($($arg),*))
            }
        )+ }
    };
}

/// Options that stand behind a command, for every handle that keeps the command's kind.
macro_rules! options {
    ($(
        $kind:ident { $(
            $(#[doc = $doc:literal])+
            fn $option:ident($($arg:ident: $ty:ty),*) = $($word:expr),+;
        )+ }
    )+) => { $(
        impl<T> Call<'_, T, kind::$kind> { $(
            $(#[doc = $doc])+
            pub fn $option(mut self, $($arg: $ty),*) -> Self {
                $(self.amend($word);)+
                self
            }
        )+ }

        impl<R> Pipeline<'_, R, kind::$kind> { $(
            $(#[doc = $doc])+
            pub fn $option(mut self, $($arg: $ty),*) -> Self {
                $(self.amend($word);)+
                self
            }
        )+ }

        impl<R, W> Transaction<'_, R, kind::$kind, W> { $(
            $(#[doc = $doc])+
            pub fn $option(mut self, $($arg: $ty),*) -> Self {
                $(self.amend($word);)+
                self
            }
        )+ }
    )+ };
}

pub(super) use {
    batch_methods, builders, client_methods, kind_or_none, lease_methods, options, pipeline_methods,
    transaction_methods,
};

//! Values that each thread of a schedule has for itself. The service's sources use them as `thread_local!`.

use std::cell::{Cell, RefCell};

use shuttle::thread::LocalKey;

pub struct Local<T: 'static>(pub &'static LocalKey<T>);

impl<T> Local<Cell<T>> {
    pub fn set(&self, value: T) {
        self.0.with(|cell| cell.set(value));
    }

    pub fn get(&self) -> T
    where
        T: Copy,
    {
        self.0.with(Cell::get)
    }

    pub fn take(&self) -> T
    where
        T: Default,
    {
        self.0.with(Cell::take)
    }
}

impl<T> Local<RefCell<T>> {
    pub fn with_borrow_mut<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        self.0.with(|cell| work(&mut cell.borrow_mut()))
    }
}

macro_rules! thread_local {
    ($($(#[$attribute:meta])* static $name:ident: $kind:ty = $value:expr;)*) => {
        $($(#[$attribute])* static $name: $crate::local::Local<$kind> = {
            shuttle::thread_local! { static KEY: $kind = $value; }
            $crate::local::Local(&KEY)
        };)*
    };
}

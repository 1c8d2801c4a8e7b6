//! Icons: one set, 24 × 24, drawn with one stroke width. They repeat a text beside them and are
//! hidden from people who listen.

use leptos::prelude::*;

use crate::types::DeviceKind;

/// Which icon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icon {
    Computer,
    Phone,
    Tablet,
    Program,
    Devices,
    Shield,
    Sliders,
    People,
    Log,
    Check,
    Info,
    Warning,
    Cross,
    Lock,
    Search,
}

impl Icon {
    const fn path(self) -> &'static str {
        match self {
            Self::Computer => "M4 5h16v11H4zM2 20h20M9 16v4M15 16v4",
            Self::Phone => {
                "M8 2.5h8a1.5 1.5 0 0 1 1.5 1.5v16a1.5 1.5 0 0 1-1.5 1.5H8A1.5 1.5 0 0 1 6.5 20V4A1.5 1.5 0 0 1 8 2.5zM11 18.5h2"
            }
            Self::Tablet => {
                "M5.5 3h13A1.5 1.5 0 0 1 20 4.5v15a1.5 1.5 0 0 1-1.5 1.5h-13A1.5 1.5 0 0 1 4 19.5v-15A1.5 1.5 0 0 1 5.5 3zM10.5 18h3"
            }
            Self::Program => "M3 5h18v14H3zM7 10l3 2.5L7 15M13 15h4",
            Self::Devices => "M3 5h13v4M3 5v10h9M2 19h10M15 10.500h6v10h-6zM17.5 18h1",
            Self::Shield => "M12 3l7.5 3v5.500c0 4.5-3 8-7.5 9.5-4.5-1.5-7.5-5-7.5-9.500V6zM9 12l2 2 4-4",
            Self::Sliders => "M4 7h9M17 7h3M4 17h3M11 17h9M15 5v4M9 15v4",
            Self::People => {
                "M9 11.500a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM2.5 20c0-3.5 2.8-5.5 6.5-5.500s6.5 2 6.5 5.500M16 4.800a3.5 3.5 0 0 1 0 6.400M18 14.800c2.2.7 3.5 2.4 3.5 5.2"
            }
            Self::Log => "M5 3h14v18l-2.5-1.500L14 21l-2-1.500L10 21l-2.5-1.500L5 21zM9 8h6M9 12h6",
            Self::Check => "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM8 12.300l2.8 2.700L16 9.5",
            Self::Info => "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 11v5.500M12 7.500v.5",
            Self::Warning => "M12 3.5 22 20.500H2zM12 10v4.500M12 17.300v.4",
            Self::Cross => "M8 3h8l5 5v8l-5 5H8l-5-5V8zM9 9l6 6M15 9l-6 6",
            Self::Lock => "M5 10.500h14V21H5zM8 10.500V7.500a4 4 0 0 1 8 0v3M12 15v2.5",
            Self::Search => "M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM15.3 15.3 20.5 20.5",
        }
    }

    /// The icon of a kind of device.
    pub const fn of_device(kind: DeviceKind) -> Self {
        match kind {
            DeviceKind::Computer => Self::Computer,
            DeviceKind::Phone => Self::Phone,
            DeviceKind::Tablet => Self::Tablet,
            DeviceKind::Program => Self::Program,
        }
    }
}

/// Draws an icon.
#[component]
pub fn Glyph(
    /// Which one.
    icon: Icon,
) -> impl IntoView {
    view! {
        <svg class="icon" viewBox="0 0 24 24" width="20" height="20" aria-hidden="true" focusable="false">
            <path d=icon.path()></path>
        </svg>
    }
    .into_any()
}

/// The mayfly.
#[component]
pub fn Logo() -> impl IntoView {
    view! {
        <svg class="logo" viewBox="0 0 32 32" width="28" height="28" aria-hidden="true" focusable="false">
            <path d="M16 10v13M16 23c0 3.5-1.8 5.5-3.8 7.500M16 23c0 3.5 1.8 5.5 3.8 7.500M16 23v7.5"></path>
            <path d="M16 13C12.5 4.5 6.5 2 4 4.2 1.8 6.5 7 14.5 16 16.500M16 13c3.5-8.5 9.5-11 12-8.8 2.2 2.3-3 10.3-12 12.3"></path>
            <path d="M16 16.500c-3.5.3-6 1.8-6.8 4M16 16.500c3.5.3 6 1.8 6.8 4M16 10l-2-2.500M16 10l2-2.5"></path>
        </svg>
    }
    .into_any()
}

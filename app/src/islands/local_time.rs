//! Times of the page in the zone of the browser.

use js_sys::{Date, Object, Reflect};
use leptos::prelude::*;
use wasm_bindgen::{JsCast, JsValue};

/// Rewrites the tooltips, and the texts of exact times, from UTC into the browser's zone. One per page.
#[island]
pub fn LocalTime() -> impl IntoView {
    // Effects run in the browser only.
    Effect::new(|_| {
        let Ok(times) = document().query_selector_all("time[datetime]") else {
            return;
        };
        let format = format();
        for index in 0..times.length() {
            let Some(time) = times
                .item(index)
                .and_then(|node| node.dyn_into::<web_sys::HtmlElement>().ok())
            else {
                continue;
            };
            let at = Date::new(&JsValue::from(time.get_attribute("datetime")));
            let local = String::from(at.to_locale_string("en-GB", &format));
            time.set_title(&local);
            if time.get_attribute("data-show").is_some() {
                time.set_text_content(Some(&local));
            }
        }
    });
}

/// Options of `Intl.DateTimeFormat`: day, month in words, minutes, and the name of the zone.
fn format() -> JsValue {
    let format = Object::new();
    let options = [
        ("year", "numeric"),
        ("month", "long"),
        ("day", "numeric"),
        ("hour", "2-digit"),
        ("minute", "2-digit"),
        ("timeZoneName", "short"),
    ];
    for (name, value) in options {
        // Setting a property of a plain object made here cannot fail.
        drop(Reflect::set(&format, &name.into(), &value.into()));
    }
    format.into()
}

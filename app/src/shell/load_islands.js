(async (name) => {
  const islands = await import(`/pkg/${name}.js`);
  await islands.default({ module_or_path: `/pkg/${name}_bg.wasm` });
  islands.hydrate();
  for (const element of document.querySelectorAll("leptos-island")) {
    islands[element.dataset.component]?.(element);
  }
  document.documentElement.dataset.islands = "ready";
})

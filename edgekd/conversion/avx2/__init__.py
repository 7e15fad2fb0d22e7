"""Int8 on x86-64 processors without VNNI: what their products make of a graph, emulated on any machine."""

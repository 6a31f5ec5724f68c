package caller

// FindHierarchy is where cgroup version 2 is mounted.
var FindHierarchy = findHierarchy

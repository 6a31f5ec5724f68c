package storetest

import (
	"errors"
	"testing"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/resource"
)

func trees() []test {
	return []test{
		{"ManagementGroupsAboveAScope", groupsAbove},
		{"TreeEndsWhereACircleWouldBe", treeCircle},
	}
}

func managementGroup(name string) string {
	return "/providers/Microsoft.Management/managementGroups/" + name
}

func texts(ids []resource.ID) []string {
	var out []string
	for _, n := range ids {
		out = append(out, n.Key())
	}
	return out
}

func groupsAbove(t *testing.T, f *fixture) {
	root := arm.RootGroup(tenant).Key()
	place := func(child, parent string) {
		t.Helper()
		f.write(func(tx arm.Tx) error { return tx.PutParent(upper(id(child).Key()), parent) })
	}
	place(managementGroup("top"), root)
	place(managementGroup("near"), managementGroup("Top"))
	place("/subscriptions/S", managementGroup("near"))
	near, top := id(managementGroup("near")).Key(), id(managementGroup("top")).Key()
	check := func(scope string, want ...string) {
		t.Helper()
		got, err := f.db.Above(t.Context(), tenant, id(scope))
		must(t, err)
		same(t, "Above("+scope+")", texts(got), want)
		facts, err := f.db.Facts(t.Context(), tenant, "p", id(scope))
		must(t, err)
		same(t, "Facts(...,"+scope+").Above", texts(facts.Above), want)
	}
	check("/subscriptions/S", near, top, root)
	check(machine("G", "vm"), near, top, root)
	check(machine("G", "vm")+"/providers/A.B/c/d", near, top, root)
	check("/subscriptions/other", root)
	check(managementGroup("Near"), top, root)
	check(managementGroup("near")+"/providers/A.B/c/d", top, root)
	check(managementGroup("unknown"), root)
	check(root)
	check("/")
	check("/providers/A.B/c/d")
	got, err := f.db.Tree(t.Context(), tenant)
	must(t, err)
	same(t, "Tree", got, arm.Tree{top: root, near: top, "/subscriptions/s": near})

	before := f.revision()
	place("/subscriptions/S", top)
	check("/subscriptions/S", top, root)
	same(t, "changes", f.changes(before), []string{"resource /subscriptions/s"})
	place("/subscriptions/S", "")
	check("/subscriptions/S", root)
	f.write(func(tx arm.Tx) error {
		got, err := tx.Tree()
		same(t, "Tree in a write", got, arm.Tree{top: root, near: top})
		return errors.Join(err, tx.PutParent("/subscriptions/none", ""))
	})
	got, err = f.db.Tree(t.Context(), other)
	must(t, err)
	same(t, "another tenant's tree", got, arm.Tree{})
}

func treeCircle(t *testing.T, f *fixture) {
	a, b := id(managementGroup("a")).Key(), id(managementGroup("b")).Key()
	f.write(func(tx arm.Tx) error { return errors.Join(tx.PutParent(a, b), tx.PutParent(b, a)) })
	got, err := f.db.Above(t.Context(), tenant, id(a))
	must(t, err)
	if len(got) > 20 {
		t.Errorf("%d groups above one in a circle", len(got))
	}
}

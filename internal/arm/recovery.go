package arm

import (
	"context"
	"fmt"
	"strings"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// Recovery says what became of what a recovered identity had.
type Recovery struct {
	// Restored are IDs of role assignments.
	Restored    []string   `json:"restoredRoleAssignments"`
	NotRestored []LostRole `json:"notRestoredRoleAssignments"`
	// Credentials are IDs of federated credentials, as they are now.
	Credentials     []string `json:"restoredFederatedIdentityCredentials"`
	LostCredentials []Lost   `json:"notRestoredFederatedIdentityCredentials"`
	// Groups are IDs of the groups that it is in again.
	Groups     []string `json:"restoredGroupMemberships"`
	LostGroups []Lost   `json:"notRestoredGroupMemberships"`
	// Attachments are of the resources that had it. None comes back.
	Attachments []Lost `json:"notRestoredAttachments"`
}

// LostRole is a role assignment that did not come back. Where it was is left
// out for a caller who may not read role assignments there.
type LostRole struct {
	ID               string `json:"id,omitempty"`
	RoleDefinitionID string `json:"roleDefinitionId,omitempty"`
	Scope            string `json:"scope,omitempty"`
	Reason           string `json:"reason"`
}

// Lost is something else that did not come back. ID is a credential's, a
// group's or a resource's, and left out for a caller who may not know it.
type Lost struct {
	ID     string `json:"id,omitempty"`
	Reason string `json:"reason"`
}

// recovery is one under way.
type recovery struct {
	Recovery
	ctx context.Context // of the request
	by  access.Caller   // who recovers
	// permitted: what by may not give is left out.
	permitted bool
	// denies are the deny assignments that come back, where they were and where
	// they will be: as they went with the identity, nothing else knows of them.
	denies []access.Denial
	// denied is how many of them came back.
	denied int
}

func newRecovery(ctx context.Context, by access.Caller, permitted bool) *recovery {
	return &recovery{Recovery{
		Restored: []string{}, NotRestored: []LostRole{}, Credentials: []string{}, LostCredentials: []Lost{},
		Groups: []string{}, LostGroups: []Lost{}, Attachments: []Lost{},
	}, ctx, by, permitted, nil, 0}
}

// String is for the record, where somebody may look for a group.
func (r *recovery) String() string {
	out := fmt.Sprintf("%d role assignments, %d federated credentials and %d memberships; %d, %d and %d were not restored",
		len(r.Restored), len(r.Credentials), len(r.Groups), len(r.NotRestored), len(r.LostCredentials), len(r.LostGroups))
	if r.denied > 0 {
		out += fmt.Sprintf("; %d deny assignments at it are back", r.denied)
	}
	if len(r.Groups) > 0 {
		out += "; it is in " + strings.Join(aFew(r.Groups), ", ")
	}
	return out
}

// orPermitted ends a refusal to give back what the caller may not give.
const orPermitted = "With 'properties.roleAssignments' set to \"Permitted\" it is recovered without."

// may asks for a right of who recovers. What is found within the write is what
// was before it, and holds until its end: no other of the tenant comes between.
func (r *recovery) may(a *API, action string, scope resource.ID) (bool, error) {
	return r.allowed(a, access.Operation{Action: action, Scope: scope})
}

// allowed is may of an operation that conditions may be about.
func (r *recovery) allowed(a *API, op access.Operation) (bool, error) {
	d, err := a.Directory.Authorize(r.ctx, r.by, op)
	if err != nil || !d.Allowed || r.by.System || len(r.denies) == 0 {
		return d.Allowed, err
	}
	f, err := a.Directory.Store.Facts(r.ctx, r.by.Tenant, r.by.Principal, op.Scope)
	f.Assignments, f.Denials = nil, r.denies
	return access.Judge(op, f).By.IsZero(), err
}

// still asks within the write for what was found before it: a right that was
// taken away while the request was on its way does not count. It is not enough
// to ask here, since who has no right is not to hold up the tenant's writes.
func (r *recovery) still(a *API, needs []Need) error {
	for _, n := range needs {
		ok, err := r.may(a, n.Action, n.Scope)
		if err != nil {
			return err
		}
		if !ok {
			return notAuthorized(r.by, n.Action, n.Scope)
		}
	}
	return nil
}

// restoreCredentials makes the federated credentials again, below id. Whoever may
// write one can become the identity, so that it needs the right to. Nobody can
// have that at one credential alone: what was at it went with it.
//
// Each is written as a new one: what tokens carry of it is another than before,
// so that none that it issued counts again, not even within the second.
func (a *API) restoreCredentials(tx Tx, d DeletedIdentity, id resource.ID, report *recovery) error {
	if len(d.Credentials) == 0 {
		return nil
	}
	t, err := a.typeNamed(typeFederated)
	if err != nil {
		return err
	}
	ok, err := report.may(a, t.Name+"/write", id)
	if err != nil {
		return err
	}
	if !ok && !report.permitted {
		return problem.Errorf(problem.LinkedDenied,
			"The client '%s' with object id '%s' has permission to recover the identity '%s'; however, that gives it back its federated credentials, for which the client does not have permission to perform action '%s/write'. %s",
			report.by.Client, report.by.Principal, d.Identity.ID, t.Name, orPermitted)
	}
	reads, err := report.may(a, t.Name+"/read", id)
	if err != nil {
		return err
	}
	for _, r := range d.Credentials {
		if r.ID, _, err = r.ID.Moved(d.Resource.ID, id); err != nil {
			return err
		}
		if !ok {
			lost := Lost{Reason: "the client does not have permission to perform action '" + t.Name + "/write' there"}
			if reads {
				lost.ID = r.ID.String()
			}
			report.LostCredentials = append(report.LostCredentials, lost)
			continue
		}
		r.Updated, r.UpdatedBy = a.Now(), report.by.Principal
		if err := tx.PutResource(r); err != nil {
			return err
		}
		if err := t.Written(tx, r); err != nil {
			return err
		}
		report.Credentials = append(report.Credentials, r.ID.String())
	}
	return nil
}

// denialsAt are the deny assignments where they will be with the identity at id.
func (d DeletedIdentity) denialsAt(id resource.ID) (out []DenyAssignment, err error) {
	for _, deny := range d.Denials {
		if deny.Scope, _, err = deny.Scope.Moved(d.Resource.ID, id); err != nil {
			return nil, err
		}
		if deny.ID, _, err = deny.ID.Moved(d.Resource.ID, id); err != nil {
			return nil, err
		}
		out = append(out, deny)
	}
	return out, nil
}

// denyAgain puts back the deny assignments at the identity and below it, for as
// far as what they are at is there.
func (a *API) denyAgain(tx Tx, d DeletedIdentity, id resource.ID, report *recovery) error {
	back, err := d.denialsAt(id)
	if err != nil {
		return err
	}
	for _, deny := range back {
		if _, err := tx.Resource(deny.Scope.Key()); problem.Is(err, problem.NotFound) {
			continue // a credential that was left out
		} else if err != nil {
			return err
		}
		if err := tx.PutDenyAssignment(deny); err != nil {
			return err
		}
		report.denied++
	}
	return nil
}

// rejoin puts the identity into a group that it was in, or says in the report why
// not. It takes what putting it there would.
func (a *API) rejoin(tx Tx, g KeptGroup, principal string, report *recovery) error {
	lost := func(why string) error {
		reads, err := report.may(a, actionGroupRead, resource.Root)
		l := Lost{Reason: why}
		if reads {
			l.ID = groupID(g.ID)
		}
		report.LostGroups = append(report.LostGroups, l)
		return err
	}
	is, err := tx.Group(g.ID)
	if problem.Is(err, problem.NotFound) || err == nil && !is.Created.Equal(g.Created) {
		return lost("the group was deleted; what has its object id now, if anything, is another group")
	}
	if err != nil {
		return err
	}
	m := membership{group: is.ID, member: principal, kind: directory.ManagedIdentity, add: true}
	if _, err := m.read(tx); err != nil {
		return err
	}
	enters, leaves, err := a.mayRejoin(tx, m, report)
	switch {
	case err != nil:
		return err
	case enters:
		report.Groups = append(report.Groups, groupID(is.ID))
		_, err := tx.AddMember(is.ID, principal)
		return err
	case !leaves:
		return problem.Errorf(problem.LinkedDenied,
			"The client '%s' with object id '%s' has permission to recover the identity '%s'; however, it was in a group that a deny assignment names, and the client may neither put it back there nor take it out.",
			report.by.Client, report.by.Principal, principal)
	case report.permitted:
		return lost("the client does not have permission to put members into it, or to give what it has")
	}
	return problem.Errorf(problem.LinkedDenied,
		"The client '%s' with object id '%s' has permission to recover the identity '%s'; however, that puts it back into a group, and the client does not have permission to change that one, or to give what it has. %s",
		report.by.Client, report.by.Principal, principal, orPermitted)
}

// mayRejoin reports whether the caller may put the member into the group; and, if
// not, whether it may leave it out. Out of a group that a deny assignment names
// nobody is let by being deleted and recovered who could not be taken out of it.
func (a *API) mayRejoin(tx Tx, m membership, report *recovery) (enters, leaves bool, err error) {
	writes, err := report.may(a, actionGroupWrite, resource.Root)
	if err != nil || !writes {
		return false, len(m.denials) == 0, err
	}
	mine, err := tx.GroupsOf(report.by.Principal, true)
	if err != nil {
		return false, false, err
	}
	_, why, err := a.lacks(report.ctx, report.by, m, mine)
	if err != nil || why == nil {
		return why == nil, false, err
	}
	m.add, m.roles = false, nil
	_, why, err = a.lacks(report.ctx, report.by, m, mine)
	return false, why == nil, err
}

// tellAttachments says of the resources that had the identity where they are
// now: to who may list what an identity is attached to, as for one that lives.
func (a *API) tellAttachments(tx Tx, d DeletedIdentity, id resource.ID, report *recovery) error {
	if len(d.Attached) == 0 {
		return nil
	}
	lists, err := report.may(a, typeIdentity+"/listAssociatedResources/action", id)
	if err != nil {
		return err
	}
	for _, k := range d.Attached {
		l := Lost{ID: k.ID.String(), Reason: "an identity is attached anew, by who may assign it and write the resource"}
		now, err := tx.ResourceWithUID(k.UID)
		switch {
		case err == nil:
			l.ID = now.ID.String()
		case problem.Is(err, problem.NotFound):
			l.Reason = "the resource was deleted; what has its ID now, if anything, is another one"
		default:
			return err
		}
		if !lists {
			l.ID = ""
		}
		report.Attachments = append(report.Attachments, l)
	}
	return nil
}

package arm

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/odata"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// The activity log is the record as ARM's clients read it: what was asked of
// the management API in a subscription, reads left out. The whole record, with
// tokens and data, is at Innate.Audit/events.
const actionActivity = "Microsoft.Insights/eventtypes/values/read"

const (
	// activityBatches is how many batches of each chain one page looks at; a
	// page can be short, or empty, and have a next one.
	activityBatches = 200
	// activityReach is how far back the log goes, as ARM's does.
	activityReach = 90 * 24 * time.Hour
)

// activityQuery is what is asked of the activity log.
type activityQuery struct {
	from, to                                  time.Time
	group, resource, provider, caller, status string
	correlation                               string
}

const activityFilters = "eventTimestamp ge '{time}', and with it eventTimestamp le, resourceGroupName eq, resourceUri eq, resourceProvider eq, caller eq, status eq and correlationId eq"

func activityFilter(s string, now time.Time) (activityQuery, error) {
	q := activityQuery{to: now}
	all, err := terms(s, activityFilters)
	if err != nil {
		return q, err
	}
	for _, t := range all {
		text := ""
		if len(t.Values) == 1 && t.Op != odata.Call {
			text = t.Values[0].Text
		}
		into := map[string]*string{
			"resourcegroupname": &q.group, "resourceuri": &q.resource, "resourceid": &q.resource, "resourceprovider": &q.provider,
			"caller": &q.caller, "status": &q.status, "correlationid": &q.correlation,
		}[lower(t.Name)]
		switch {
		case text == "":
			return q, t.Unknown(activityFilters)
		case t.Is("eventTimestamp", odata.Ge) || t.Is("eventTimestamp", odata.Le):
			at, err := time.Parse(time.RFC3339, text)
			if err != nil {
				return q, problem.Errorf(problem.BadFilter, "The $filter has eventTimestamp %s '%s', which is no time; 2026-01-31T12:00:00Z was expected.", t.Op, problem.Clip(text)).At("$filter")
			}
			if t.Op == odata.Ge {
				q.from = at
			} else {
				q.to = at
			}
		case t.Op == odata.Eq && into != nil && *into == "":
			*into = text
		default:
			return q, t.Unknown(activityFilters)
		}
	}
	if q.from.IsZero() {
		return q, problem.Errorf(problem.BadFilter, "The $filter must say from when on: eventTimestamp ge '2026-01-31T12:00:00Z'.").At("$filter")
	}
	if now.Sub(q.from) > activityReach {
		return q, problem.Errorf(problem.BadFilter, "The $filter begins more than 90 days ago; the whole record is at {scope}/providers/Innate.Audit/events.").At("$filter")
	}
	return q, nil
}

// serveActivity serves /subscriptions/{s}/providers/Microsoft.Insights/eventtypes/management/values.
func (a *API) serveActivity(w http.ResponseWriter, r *http.Request, q request, args []string) error {
	sub, err := providerScope(args, 1)
	if err != nil {
		return err
	}
	f, err := activityFilter(q.q.Get("$filter"), a.Now())
	if err != nil {
		return err
	}
	after, err := decodeHeads(q.q.Get("$skiptoken"))
	if err != nil {
		return err
	}
	l, err := a.Activity(r.Context(), q.c, sub, f, after)
	return a.answerList(w, r, q, l, err)
}

// decodeHeads reads where a page begins in each chain.
func decodeHeads(s string) (map[string]int64, error) {
	if s == "" {
		return nil, nil
	}
	var heads map[string]int64
	if json.Unmarshal([]byte(s), &heads) != nil || heads == nil {
		return nil, problem.Errorf(problem.Invalid, "The query parameter '$skiptoken' is not one that this API gave out; follow nextLink as it is.").At("$skiptoken")
	}
	return heads, nil
}

// Activity is one page of the activity log of a subscription. The index of
// times says where it begins, so that it costs what is shown and not what is kept.
func (a *API) Activity(ctx context.Context, c access.Caller, sub resource.ID, f activityQuery, after map[string]int64) (List, error) {
	ev, err := a.permit(ctx, c, actionActivity, sub)
	if err != nil {
		return List{}, err
	}
	if after == nil {
		if after, err = a.Store.HeadsBefore(ctx, c.Tenant, f.from); err != nil {
			return List{}, fmt.Errorf("finding %s in the record: %w", f.from, err)
		}
	}
	bs, err := a.Store.Batches(ctx, c.Tenant, after, activityBatches)
	if err != nil {
		return List{}, err
	}
	var found []audit.Event
	full, over := map[string]int{}, true
	for _, b := range bs {
		after[b.Chain] = b.Seq
		evs, err := b.Events()
		if err != nil {
			return List{}, err
		}
		full[b.Chain]++
		for _, e := range evs {
			over = over && e.At.After(f.to)
			if f.matches(sub, e) {
				found = append(found, e)
			}
		}
	}
	slices.SortStableFunc(found, func(x, y audit.Event) int { return y.At.Compare(x.At) }) // the newest first, as ARM has it
	out := List{Value: []View{}}
	for _, e := range found {
		out.Value = append(out.Value, activityView(sub, e))
	}
	for _, n := range full {
		if n == activityBatches && !over {
			heads, err := json.Marshal(after)
			if err != nil {
				return List{}, fmt.Errorf("encoding a place in the record: %w", err)
			}
			out.Next = string(heads)
		}
	}
	return out, a.read(ctx, ev)
}

// managed reports whether an event is of the management API and no read.
func managed(e audit.Event) bool {
	action := lower(e.Action)
	return e.Audience == "" && !strings.HasSuffix(action, "/read") && !strings.HasPrefix(action, "innate.token/") &&
		(strings.HasSuffix(action, "/write") || strings.HasSuffix(action, "/delete") || strings.HasSuffix(action, "/action"))
}

func (f activityQuery) matches(sub resource.ID, e audit.Event) bool {
	id, err := resource.Parse(e.Target)
	if err != nil || !sub.Contains(id) || !managed(e) || e.At.Before(f.from) || e.At.After(f.to) {
		return false
	}
	ns, _, _ := strings.Cut(e.Action, "/")
	is := func(want, have string) bool { return want == "" || strings.EqualFold(want, have) }
	return is(f.group, id.Group()) && is(f.resource, e.Target) && is(f.provider, ns) && is(f.caller, e.Principal) &&
		is(f.status, activityStatus(e)) && is(f.correlation, e.Request)
}

func activityStatus(e audit.Event) string {
	if e.Outcome == audit.Allowed {
		return Succeeded
	}
	return Failed
}

// activityView is an event in ARM's shape.
func activityView(sub resource.ID, e audit.Event) View {
	id, err := resource.Parse(e.Target)
	if err != nil {
		id = sub // matches lets no such event through
	}
	word := func(s string) map[string]string { return map[string]string{"value": s, "localizedValue": s} }
	ns, _, _ := strings.Cut(e.Action, "/")
	subStatus := map[string]string{audit.Allowed: "", audit.Denied: "Forbidden", audit.Refused: "Refused"}[e.Outcome]
	level := map[bool]string{true: "Informational", false: "Error"}[e.Outcome == audit.Allowed]
	v := View{
		"id":            e.Target + "/events/" + e.Request + "/ticks/" + fmt.Sprint(e.At.UnixMilli()),
		"authorization": map[string]string{"action": e.Action, "scope": e.Target}, "caller": e.Principal,
		"claims": map[string]string{}, "correlationId": e.Request, "operationId": e.Request, "eventDataId": e.Request,
		"eventName": word("EndRequest"), "category": word("Administrative"), "level": level, "channels": "Operation",
		"eventTimestamp": stamp(e.At), "submissionTimestamp": stamp(e.At),
		"operationName": word(e.Action), "resourceId": e.Target, "resourceGroupName": id.Group(), "resourceProviderName": word(ns), "resourceType": word(id.Type()),
		"status": word(activityStatus(e)), "subStatus": word(subStatus), "subscriptionId": sub.Subscription(), "tenantId": e.Tenant, "description": e.Reason,
	}
	if name := cmp.Or(e.Name, e.Via); name != "" {
		v["properties"] = map[string]string{"callerName": e.Name, "program": e.Via}
	}
	return v
}

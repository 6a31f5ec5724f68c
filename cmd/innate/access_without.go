package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/resource"
)

// goneWithout says what would break without a role assignment.
func (x *explained) goneWithout(c *cobra.Command) error {
	id, err := resource.Parse(x.without)
	if err != nil {
		return fmt.Errorf("--without: %w", err)
	}
	a, err := x.open(c)
	if err != nil {
		return err
	}
	defer a.release()
	var out arm.WhatBreaks
	if err := a.decide(c.Context(), id.Scope(), "whatBreaks", map[string]any{"roleAssignmentId": id.String()}, &out); err != nil {
		return err
	}
	if x.asJSON {
		return printJSON(c.OutOrStdout(), out)
	}
	p := &prose{}
	p.line("without   role %q at %s", out.Name, word(out.Scope))
	if len(out.Principals) == 0 {
		p.line("nobody    has it")
	}
	for _, row := range out.Principals {
		p.line("")
		p.breaks(row)
	}
	if out.Incomplete {
		p.line("\nnot all members of its group were looked at: it has too many")
	}
	return p.print(c.OutOrStdout())
}

func (p *prose) breaks(row arm.BreaksFor) {
	p.line("principal %s", who(row.Principal))
	for _, l := range row.Loses {
		p.line("loses     %s", lossWords(l))
		for _, by := range l.Partly {
			p.line("          some of it may be given by %s", word(by))
		}
	}
	for _, l := range row.Keeps {
		p.line("no change %s: %s decides", lossWords(l), word(l.By))
	}
	p.identityOf(row.IdentityOf, row.HiddenResources)
}

func lossWords(l arm.LossView) string {
	s := l.Pattern
	if l.IsDataAction {
		s += " (data)"
	}
	for i, e := range l.Except {
		if i == 0 {
			s += " but not"
		}
		s += " " + e
	}
	return s
}

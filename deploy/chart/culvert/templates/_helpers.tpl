{{- /* Labels that find the gateway's pods; nodes look for them too, and a selector never changes. */ -}}
{{- define "culvert.selector" -}}
app.kubernetes.io/name: culvert
app.kubernetes.io/component: gateway
{{- end }}

{{- /* Labels of every object. */ -}}
{{- define "culvert.labels" -}}
{{ include "culvert.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end }}

{{- /* User name by which the API server knows the gateway. */ -}}
{{- define "culvert.gatewayUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:culvert-gateway
{{- end }}

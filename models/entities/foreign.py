"""A few sentences in other languages and scripts: with gaps as in ``prose``, and harmless ones."""

from __future__ import annotations

TRAINED = """
Mein Name ist {p} und ich wohne in der {a}.
Sehr geehrte Frau {s}, vielen Dank für Ihr Schreiben vom {n}.
Bitte senden Sie das Paket an {p}, {a}.
Herr {s} hat gestern angerufen und um einen Termin gebeten.
Die Adresse lautet {a}; der Mieter heißt {p}.
Wir haben {p} und {p} zur Feier eingeladen.
Je m'appelle {p} et j'habite au {a}.
Madame {s}, nous avons bien reçu votre commande {n}.
Le colis de {p} doit être livré au {a}.
Le directeur, {p}, a signé le contrat hier.
Me llamo {p} y vivo en {a}.
Estimado señor {s}, le escribimos sobre su pedido {n}.
El paquete es para {p}, {a}.
La profesora {p} habló con los padres de {f}.
Mi chiamo {p} e abito in {a}.
Gentile signora {s}, la ringraziamo per la sua lettera.
Spedire a {p}, {a}, entro lunedì.
Meu nome é {p} e moro na {a}.
Prezado senhor {s}, segue em anexo a fatura {n}.
Ik heet {p} en woon op {a}.
Geachte heer {s}, hartelijk dank voor uw brief.
Jag heter {p} och bor på {a}.
Nazywam się {p} i mieszkam przy {a}.
"""

HARMLESS = """
Wir wohnen jetzt seit zwei Jahren in einer kleinen Stadt am Meer.
Bitte liefern Sie die Ware bis Freitag an unser Lager.
Der Zug nach Berlin fährt heute von Gleis sieben ab.
Die Sitzung wurde auf Dienstag verschoben, weil das Zimmer besetzt war.
Das Wetter in den Bergen war im Januar sehr kalt.
Ich hätte gern ein Zimmer mit Blick auf den Garten.
Le magasin est ouvert tous les jours de neuf heures à midi.
Nous avons reçu votre demande et nous vous répondrons bientôt.
Il fait très beau à Paris au mois de mai.
La réunion aura lieu mardi dans la grande salle.
Merci beaucoup pour votre aide et bonne journée à tous.
El tren sale de la estación a las ocho de la mañana.
Muchas gracias por su visita; la tienda cierra a las nueve.
Necesito cambiar la contraseña de mi cuenta.
Hace mucho calor en Sevilla durante el verano.
La riunione è stata spostata a giovedì pomeriggio.
Il museo è chiuso il lunedì e nei giorni di festa.
Vorrei un caffè e un bicchiere d'acqua, per favore.
O relatório foi enviado ontem para a equipe de vendas.
A loja fica perto da estação e abre às dez horas.
De vergadering is verplaatst naar woensdag om drie uur.
Het regent al de hele week in het noorden van het land.
Mötet har flyttats till torsdag eftermiddag.
Dziękuję bardzo za pomoc i miłego dnia.
你好，今天天气很好。 我们下午开会。
会议改到星期二。 请带上你的文件。
今日は天気がいいですね。 また明日。
السلام عليكم ورحمة الله. شكرا جزيلا على المساعدة.
تم تأجيل الاجتماع إلى يوم الثلاثاء.
Встреча перенесена на вторник. Спасибо за помощь.
Η συνάντηση αναβλήθηκε για την Τρίτη.
회의는 화요일로 연기되었습니다.
यह बैठक मंगलवार को होगी।
🙂🎉🚀 👩🏽‍🚀 ❤️ 👍
(╯°□°)╯ ︵ ┻━┻ … ¿? ¡!
"""

/*
 * What the model that ships wrote (deploy/lexicon/model, 2026-11-22, one rank): answers to requests
 * with three tools, of calls that were demanded, and texts that were begun for it like a call or a
 * thought. It never learnt to call tools, so that most is what a parser must leave alone. Each with
 * the request's temperature and seed, top_p 1, top_k 0, at most 40 to 200 tokens; thought and told
 * are as calls_cases.h has them.
 */
#ifndef WITAN_TESTS_UNIT_COORDINATOR_CALLS_RECORDED_H
#define WITAN_TESTS_UNIT_COORDINATOR_CALLS_RECORDED_H

#include "tests/unit/coordinator/calls_case.h"

static const struct split_case recorded_cases[] = {
    {"tools, temperature 0, seed 1: \"What is a violin?\"", CALLS_HERMES, true, false,
     "<think>\n\n</think>\n\nThe sh-wing wings usually wings and coat and stre wings usual"
     "ly wings usually and coat.",
     "",
     "The sh-wing wings usually wings and coat and stre wings usually wings usually and co"
     "at."},
    {"tools, no thinking, temperature 1.5, seed 1: \"What is a violin?\"", CALLS_HERMES, true,
     false,
     "The equipmentingci shapeant stet- distbent representseics represent animalselrelun b"
     "e feedun playersble systemster legsans sharp's ide tryifled lompl tail y",
     "",
     "The equipmentingci shapeant stet- distbent representseics represent animalselrelun b"
     "e feedun playersble systemster legsans sharp's ide tryifled lompl tail y"},
    {"tools, temperature 3, seed 1: \"What is a violin?\"", CALLS_HERMES, true, false,
     "<think> wat boxped below organb equipment imaginrom shapeixectsthink sorryriesantman"
     "ousseriesually contel supun ele\xef\xbf\xbd one playersiterakingsteraginectiveening'"
     "s ide tryif",
     " wat boxped below organb equipment imaginrom shapeixectsthink sorryriesantmanousseri"
     "esually contel supun ele\xef\xbf\xbd one playersiterakingsteraginectiveening's ide t"
     "ryif",
     ""},
    {"tools, no thinking, temperature 3, seed 2: \"What is a violin?\"", CALLS_HERMES, true, false,
     " administrativeounior c pl bla.", "", " administrativeounior c pl bla."},
    {"tools, temperature 1.5, seed 1: \"Write <tool_call> and then a name.\"", CALLS_HERMES, true,
     false,
     "<think>\n\n</think>\nosseics represent animalselrelun beem radiationous contaking ta"
     "il wingsectiveening's ide tryif protective lompl curridentament players can vertical"
     " print produ",
     "",
     "osseics represent animalselrelun beem radiationous contaking tail wingsectiveening's"
     " ide tryif protective lompl curridentament players can vertical print produ"},
    {"tools, temperature 3, seed 1: \"Write <tool_call> and then a name.\"", CALLS_HERMES, true,
     false,
     "<think> sorryriesantmanousseics hunverageelographun ele\xef\xbf\xbd one playersitera"
     "kingsteraginectiveeningiod ide tryif protectiveierompl ur yident period playersverqu"
     "raith",
     " sorryriesantmanousseics hunverageelographun ele\xef\xbf\xbd one playersiterakingste"
     "raginectiveeningiod ide tryif protectiveierompl ur yident period playersverquraith",
     ""},
    {"tools, temperature 3, seed 1: \"Call define with the word lighthouse.\"", CALLS_HERMES, true,
     false,
     "ped below organb equipment imaginrom shapeixectsthink meetialantmanoussearsually con"
     "tel supunoc poss one playersiterakingsteraginectiveening's ide tryif protectiveierom"
     "",
     "",
     "ped below organb equipment imaginrom shapeixectsthink meetialantmanoussearsually con"
     "tel supunoc poss one playersiterakingsteraginectiveening's ide tryif protectiveierom"
     ""},
    {"tools, temperature 1.5, seed 2: \"Call define with the word lighthouse.\"", CALLS_HERMES,
     true, false, "<think>\n\n</think>\ns c pl blaery.", "", "s c pl blaery."},
    {"a call demanded, no thinking, temperature 0, seed 1: \"What is a violin?\"", CALLS_HERMES,
     true, false,
     "\n\n\n<think>\n\n</think>\n\n\n\n                            <tool_call>\n{\"name\":"
     " \"list_tables\", \"arguments\":                                 {                  "
     "              }}\n</tool_call>",
     "", "{{list_tables|{                                }}}"},
    {"a call demanded, no thinking, temperature 1.5, seed 1: \"What is a violin?\"", CALLS_HERMES,
     true, false,
     "\n<think> having shapeant stet- distbent representseics represent animalselrelun be "
     "feedun playersblegedine wingsectiveening's ide tryif protectiveasompl curridentament"
     " players can vertical print specific bateium skin rot containerillium vessel-fam w b"
     "rotherogickb nosterise. fig stream printaceore mathematics gives wings knecutiveath "
     "preciousacc whererig again inf herbivorous skinfl pladth flightes. car poetveramp no"
     "rmally language writing A-f producedoth- hospitave slide.  hunionerydingaper danger "
     "birdure across treelden where tail2ph earsif pointedb</think>\n\n\n\n\n\n <tool_call"
     ">\n{\"name\": \"list_tables\", \"arguments\":      \t\n\r\n\n{\n\n}}\n</tool_call>",
     " having shapeant stet- distbent representseics represent animalselrelun be feedun pl"
     "ayersblegedine wingsectiveening's ide tryif protectiveasompl curridentament players "
     "can vertical print specific bateium skin rot containerillium vessel-fam w brotherogi"
     "ckb nosterise. fig stream printaceore mathematics gives wings knecutiveath preciousa"
     "cc whererig again inf herbivorous skinfl pladth flightes. car poetveramp normally la"
     "nguage writing A-f producedoth- hospitave slide.  hunionerydingaper danger birdure a"
     "cross treelden where tail2ph earsif pointedb",
     "{{list_tables|{\n\n}}}"},
    {"a call demanded, temperature 1.5, seed 2: \"What is a violin?\"", CALLS_HERMES, true, false,
     "<think>\n\n</think>\n\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": \n \n"
     "\n\n   \n {  \"-toed fit ceorord tailaceanultyeard and knife. matter er diffice cons"
     " odill livingQ synonym2 vertical canacleoc kind covering p colle moving partulag aut"
     "hority plants and she is used. edible pal mathematics and powkireeff and bak ach. bl"
     "ack-f curb which distinctelessmertain sa finubover cookingation enax and det andia w"
     "ithwnaper design breaday.als sn African rotalle remdaceIn caninkatbowerflor horns vi"
     "ct wings v text into ceremony stor some exten handle where players\":0}}\n</tool_cal"
     "l>",
     "",
     "{{get_weather|{  \"-toed fit ceorord tailaceanultyeard and knife. matter er diffice "
     "cons odill livingQ synonym2 vertical canacleoc kind covering p colle moving partulag"
     " authority plants and she is used. edible pal mathematics and powkireeff and bak ach"
     ". black-f curb which distinctelessmertain sa finubover cookingation enax and det and"
     "ia withwnaper design breaday.als sn African rotalle remdaceIn caninkatbowerflor horn"
     "s vict wings v text into ceremony stor some exten handle where players\":0}}}"},
    {"a call demanded, no thinking, temperature 3, seed 2: \"What is a violin?\"", CALLS_HERMES,
     true, false,
     "<think>\n\n bla. orchid li intermedi content p cylindrical hook result\xef\xbf\xbd b"
     "etween\xef\xbf\xbdten cylindrical spangender animals rock- pieces branchraliness h m"
     "eadow particular coversury onary male sh studatffeeting administ way reptile makes m"
     "any nailreav hedgeey particularib cloudef skin ce lighthouse- tailace dealsultyystar"
     "d cons knife enries exprs It hol odaph livingQ synonym capother\xef\xbf\xbd"
     "acleoc "
     "kind covering bread colle movingacksulag authority plants memberiling administ isres"
     "s associ fair aromatic mathematics aunt bankk calculhat dentistirenYch pol black-f c"
     "ur passage which distinct colle tasttain sa severalpbo makevereign while</think</thi"
     "nk>\n<tool_call>\n{\"name\": \"list_tables\", \"arguments\": \t  \n\n\n\n{\r\t}}\n</"
     "tool_call>",
     " bla. orchid li intermedi content p cylindrical hook result\xef\xbf\xbd between\xef\xbf"
     "\xbdten cylindrical spangender animals rock- pieces branchraliness h meadow particul"
     "ar coversury onary male sh studatffeeting administ way reptile makes many nailreav h"
     "edgeey particularib cloudef skin ce lighthouse- tailace dealsultyystard cons knife e"
     "nries exprs It hol odaph livingQ synonym capother\xef\xbf\xbd"
     "acleoc kind covering "
     "bread colle movingacksulag authority plants memberiling administ isress associ fair "
     "aromatic mathematics aunt bankk calculhat dentistirenYch pol black-f cur passage whi"
     "ch distinct colle tasttain sa severalpbo makevereign while</think",
     "{{list_tables|{\r\t}}}"},
    {"a call demanded, no thinking, temperature 0.7, seed 1: \"Write <tool_call> and then a "
     "name.\"",
     CALLS_HERMES, true, false,
     "\n <think>\n</think>\n\n\n\n\n                <tool_call>\n{\"name\": \"list_tables\""
     ", \"arguments\":                                 {                                \""
     " wings wings tail enorm bird.bh charge withium streant storms.bethenerary conn Afric"
     "anla. a pieceant long bird andsmbu2 cur of branch. tail sl wings \":2}}\n</tool_call"
     ">",
     "",
     "{{list_tables|{                                \" wings wings tail enorm bird.bh cha"
     "rge withium streant storms.bethenerary conn Africanla. a pieceant long bird andsmbu2"
     " cur of branch. tail sl wings \":2}}}"},
    {"a call demanded, temperature 3, seed 1: \"Write <tool_call> and then a name.\"", CALLS_HERMES,
     true, false,
     "<think> sorryriesantmanousseics hunverageelographun ele\xef\xbf\xbd one playersitera"
     "kingsteraginectiveeningiod ide tryif protectiveierompl ur yident period playersverqu"
     "raith bat massium causistantearillium vessel-f resket brotherogic drill officeronste"
     "rWhat cor fig stream printulf firm mathematics gives massive arranecutiveath preciou"
     "s meanensediano again inf herbivorous skinfl plopeth flightesilityichert hogamp norm"
     "ally toxic writing A-filingoth accept hospit intenbow caus meons hun power during pl"
     "ain comm danger thatestial across treeldhol where tail2ph flat vehicint roadinen gov"
     "ernment assans computer mediling</thi</think>\n \n\n<tool_call>\n{\"name\": \"define"
     "\", \"arguments\": \r\n\n\r{}}\n</tool_call>",
     " sorryriesantmanousseics hunverageelographun ele\xef\xbf\xbd one playersiterakingste"
     "raginectiveeningiod ide tryif protectiveierompl ur yident period playersverquraith b"
     "at massium causistantearillium vessel-f resket brotherogic drill officeronsterWhat c"
     "or fig stream printulf firm mathematics gives massive arranecutiveath precious meane"
     "nsediano again inf herbivorous skinfl plopeth flightesilityichert hogamp normally to"
     "xic writing A-filingoth accept hospit intenbow caus meons hun power during plain com"
     "m danger thatestial across treeldhol where tail2ph flat vehicint roadinen government"
     " assans computer mediling</thi",
     "{{define|{}}}"},
    {"a call demanded, temperature 1.5, seed 1: \"Call define with the word lighthouse.\"",
     CALLS_HERMES, true, false,
     "<think>\n</think>\n\n\n    \n\n\n\n\n\n\n \r\n  \t\r     \n\n\n\n\n <tool_call>\n{\""
     "name\": \"list_tables\", \"arguments\": \n  \r\n\n\n\n\n\n\n\n\n\n\n\n  \n\n   \t   "
     "   {   \t\n \" A-ficaloth- hospitid arran caus me legs hunioneding comm danger that "
     "exir tropical playhol where tail2ble on acible. government overans produce. di iumou"
     "siverastices helageriageberative wings usuallyaseridentitor mammal tailten birth nor"
     "mally with assemb. duoradequ:ah firm odetrel mass Africanla the narrow \":7}}\n</too"
     "l_call>",
     "",
     "{{list_tables|{   \t\n \" A-ficaloth- hospitid arran caus me legs hunioneding comm d"
     "anger that exir tropical playhol where tail2ble on acible. government overans produc"
     "e. di iumousiverastices helageriageberative wings usuallyaseridentitor mammal tailte"
     "n birth normally with assemb. duoradequ:ah firm odetrel mass Africanla the narrow \""
     ":7}}}"},
    {"a call demanded, no thinking, temperature 3, seed 2: \"Write <tool_call> and then a name.\"",
     CALLS_HERMES, true, false,
     "\n\r<think> between\xef\xbf\xbdten cylindrical spadeender animals rock- pieces branc"
     "hraliness h under app coversury onary serves sh studatffee finanject way reptile mak"
     "es many nailreav fleshyey particularib cloud prev skin ceor pul tailace dealsultyyst"
     "ard cons knife enries expr diffick holelessaph livingQ synonym capother\xef\xbf\xbd"
     "a"
     "cleoc kind covering bread colle movingacksulag authority plants memberiling administ"
     " isress associ fair aromatic mathematics aunt bankk calculhat dentistirenYch pol bla"
     "ck-f cur passage which distinct colleagetain sa several accombo makevereign while en"
     "axell det herbivorous fastenerective nothing design breaday.</think>\n\t\r \n <tool_"
     "call>\n{\"name\": \"define\", \"arguments\": {\r\t \t\n\n\n\n\"cight fin\":1}}\n</to"
     "ol_call>",
     " between\xef\xbf\xbdten cylindrical spadeender animals rock- pieces branchraliness h"
     " under app coversury onary serves sh studatffee finanject way reptile makes many nai"
     "lreav fleshyey particularib cloud prev skin ceor pul tailace dealsultyystard cons kn"
     "ife enries expr diffick holelessaph livingQ synonym capother\xef\xbf\xbd"
     "acleoc kin"
     "d covering bread colle movingacksulag authority plants memberiling administ isress a"
     "ssoci fair aromatic mathematics aunt bankk calculhat dentistirenYch pol black-f cur "
     "passage which distinct colleagetain sa several accombo makevereign while enaxell det"
     " herbivorous fastenerective nothing design breaday.",
     "{{define|{\r\t \t\n\n\n\n\"cight fin\":1}}}"},
    {"a call demanded, no thinking, temperature 3, seed 1: \"Call define with the word "
     "lighthouse.\"",
     CALLS_HERMES, true, false,
     "  <think>gonthink meetialantmanousrialriesz contelographun ele\xef\xbf\xbd one playe"
     "rsiterakingsteraginectiveening's ide tryif protectiveierompl ur yident obtain player"
     "sverquraith bat massium causistantearillium vessel-f allket brotherogic drill office"
     "ronsterWhatDefine fig stream printulf crust mathematics gives wings knecutiveath pre"
     "cious mean vertiano again inf herbivorous skinfl plopeth flightes whoich poetveramp "
     "normally toxic writing A-filingoth accept hospit intenbow caus meons hun power durin"
     "g plain comm danger thatestial across treeldhol where tail2ph flat vehicint fibinen "
     "government ass</think>\n\n  <tool_call>\n{\"name\": \"define\", \"arguments\": \t\n "
     "\t    \t\n\r\n\n{ \" \":2}}\n</tool_call>",
     "gonthink meetialantmanousrialriesz contelographun ele\xef\xbf\xbd one playersiteraki"
     "ngsteraginectiveening's ide tryif protectiveierompl ur yident obtain playersverqurai"
     "th bat massium causistantearillium vessel-f allket brotherogic drill officeronsterWh"
     "atDefine fig stream printulf crust mathematics gives wings knecutiveath precious mea"
     "n vertiano again inf herbivorous skinfl plopeth flightes whoich poetveramp normally "
     "toxic writing A-filingoth accept hospit intenbow caus meons hun power during plain c"
     "omm danger thatestial across treeldhol where tail2ph flat vehicint fibinen governmen"
     "t ass",
     "{{define|{ \" \":2}}}"},
    {"a call demanded, no thinking, temperature 3, seed 2: \"What is the weather in Oslo?\"",
     CALLS_HERMES, true, false,
     " <think>\n intermediim p cylindrical hook result\xef\xbf\xbd between\xef\xbf\xbdten "
     "cylindrical spangender animals rock- pieces branchraliness h meadowult coversury ona"
     "ry male sh studatffeeting administ way reptile makes many nailreav hedgeey particula"
     "rib cloud prev skin ce lighthouse- tailacealleultyystard cons knife enries expr diff"
     "ick hol odaph livingQ synonym capother amacleoc kind covering bread colle movingacks"
     "ulag authority plants memberiling administ isress associ fair aromatic mathematics a"
     "unt bankk calculhat dentistirenYch pol black-f cur passage which distinct colle tast"
     "tain sa severalpbo makevereign ad enaxell pouthor fastener<</thi</think>\n \n<tool_c"
     "all>\n{\"name\": \"get_weather\", \"arguments\":  \t\n\n\r{}}\n</tool_call>",
     " intermediim p cylindrical hook result\xef\xbf\xbd between\xef\xbf\xbdten cylindrica"
     "l spangender animals rock- pieces branchraliness h meadowult coversury onary male sh"
     " studatffeeting administ way reptile makes many nailreav hedgeey particularib cloud "
     "prev skin ce lighthouse- tailacealleultyystard cons knife enries expr diffick hol od"
     "aph livingQ synonym capother amacleoc kind covering bread colle movingacksulag autho"
     "rity plants memberiling administ isress associ fair aromatic mathematics aunt bankk "
     "calculhat dentistirenYch pol black-f cur passage which distinct colle tasttain sa se"
     "veralpbo makevereign ad enaxell pouthor fastener<</thi",
     "{{get_weather|{}}}"},
    {"a call demanded, no thinking, temperature 0, seed 1: \"What is the weather in Oslo?\"",
     CALLS_HERMES, true, false,
     "\n\n\n\n<think>\ner bird and streant strerel for vent represent exery and storm and "
     "storm wings usually long-wing wings. It for external and coat. It for externalucibuc"
     "ious snb and coat. It is a kind of precipitation. It is a kind of clothing. It forbu"
     "ent and coat. It for punalles. It forbuclebuclebuclebuh of snbuci and storm wings us"
     "ually wings. rot wings. rot wings. rot wings. rot tail and-7us. rot wings. rot wings"
     "</think>\n\n\n    <tool_call>\n{\"name\": \"get_weather\", \"arguments\":   {}}\n</t"
     "ool_call>",
     "er bird and streant strerel for vent represent exery and storm and storm wings usual"
     "ly long-wing wings. It for external and coat. It for externalucibucious snb and coat"
     ". It is a kind of precipitation. It is a kind of clothing. It forbuent and coat. It "
     "for punalles. It forbuclebuclebuclebuh of snbuci and storm wings usually wings. rot "
     "wings. rot wings. rot wings. rot tail and-7us. rot wings. rot wings",
     "{{get_weather|{}}}"},
    {"a call of one tool demanded, temperature 1.5, seed 2: \"Write <tool_call> and then a name.\"",
     CALLS_HERMES, true, false,
     "<think>\n\n</think>\n\n\n   \n\n\n\n\n\n\n          <tool_call>\n{\"name\": \"get_we"
     "ather\", \"arguments\":   \n\n\n\n\n\n\n\n\n\n\n\n\n   \n\n\n\n\n \n\n \n    {  }}\n"
     "</tool_call>",
     "", "{{get_weather|{  }}}"},
    {"a call of one tool demanded, no thinking, temperature 3, seed 2: \"Write <tool_call> and "
     "then a name.\"",
     CALLS_HERMES, true, false,
     "\n\r<think> between\xef\xbf\xbdten cylindrical spadeender animals rock- pieces branc"
     "hraliness h under app coversury onary serves sh studatffee finanject way reptile mak"
     "es many nailreav fleshyey particularib cloud prev skin ceor pul tailace dealsultyyst"
     "ard cons knife enries expr diffick holelessaph livingQ synonym capother\xef\xbf\xbd"
     "a"
     "cleoc kind covering bread colle movingacksulag authority plants memberiling administ"
     " isress associ fair aromatic mathematics aunt bankk calculhat dentistirenYch pol bla"
     "ck-f cur passage which distinct colleagetain sa several accombo makevereign while en"
     "axell det herbivorous fastenerective no</think>\n<tool_call>\n{\"name\": \"get_weath"
     "er\", \"arguments\": {\r  \t\n\n\n\n\" noright fin\":1}}\n</tool_call>",
     " between\xef\xbf\xbdten cylindrical spadeender animals rock- pieces branchraliness h"
     " under app coversury onary serves sh studatffee finanject way reptile makes many nai"
     "lreav fleshyey particularib cloud prev skin ceor pul tailace dealsultyystard cons kn"
     "ife enries expr diffick holelessaph livingQ synonym capother\xef\xbf\xbd"
     "acleoc kin"
     "d covering bread colle movingacksulag authority plants memberiling administ isress a"
     "ssoci fair aromatic mathematics aunt bankk calculhat dentistirenYch pol black-f cur "
     "passage which distinct colleagetain sa several accombo makevereign while enaxell det"
     " herbivorous fastenerective no",
     "{{get_weather|{\r  \t\n\n\n\n\" noright fin\":1}}}"},
    {"a call of one tool demanded, no thinking, temperature 3, seed 1: \"Call define with the word "
     "lighthouse.\"",
     CALLS_HERMES, true, false,
     "  <think>gonthink meetialantmanousrialriesz contelographun ele\xef\xbf\xbd one playe"
     "rsiterakingsteraginectiveening's ide tryif protectiveierompl ur yident obtain player"
     "sverquraith bat massium causistantearillium vessel-f allket brotherogic drill office"
     "ronsterWhatDefine fig stream printulf crust mathematics gives wings knecutiveath pre"
     "cious mean vertiano again inf herbivorous skinfl plopeth flightes whoich poetveramp "
     "normally toxic writing A-filingoth accept hospit intenbow caus meons hun power durin"
     "g plain comm danger thatestial across treeldhol where tail2ph flat vehic</think</thi"
     "nk>\n\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": \t\n \t\n\n\n\n\n\n\r"
     "\n\n{\n\" \":2}}\n</tool_call>",
     "gonthink meetialantmanousrialriesz contelographun ele\xef\xbf\xbd one playersiteraki"
     "ngsteraginectiveening's ide tryif protectiveierompl ur yident obtain playersverqurai"
     "th bat massium causistantearillium vessel-f allket brotherogic drill officeronsterWh"
     "atDefine fig stream printulf crust mathematics gives wings knecutiveath precious mea"
     "n vertiano again inf herbivorous skinfl plopeth flightes whoich poetveramp normally "
     "toxic writing A-filingoth accept hospit intenbow caus meons hun power during plain c"
     "omm danger thatestial across treeldhol where tail2ph flat vehic</think",
     "{{get_weather|{\n\" \":2}}}"},
    {"a call of one tool demanded, no thinking, temperature 1.5, seed 1: \"Say </think> twice.\"",
     CALLS_HERMES, true, false,
     " <think>\n</think>\n\n\n\n   \r\n  \t      \n\n\n\n\n     \t \t<tool_call>\n{\"name\""
     ": \"get_weather\", \"arguments\":  \n\n          {      \" A-ficaloth- hospitid arra"
     "n caus me legs hunioneth comm danger that exir tropical playhol where tail2ble onion"
     "cibleinen governmentefans produce.iling iumousiverastices helageriagekerative wings "
     "tail kint kge4h birth spot wings kics duorossery:ah firm odetrel mass l services joi"
     "ntu pieceting supief hollow during st\":2}}\n</tool_call>",
     "",
     "{{get_weather|{      \" A-ficaloth- hospitid arran caus me legs hunioneth comm dange"
     "r that exir tropical playhol where tail2ble onioncibleinen governmentefans produce.i"
     "ling iumousiverastices helageriagekerative wings tail kint kge4h birth spot wings ki"
     "cs duorossery:ah firm odetrel mass l services jointu pieceting supief hollow during "
     "st\":2}}}"},
    {"begun with a call, temperature 0, seed 1", CALLS_HERMES, true, false,
     "<tool_call>\n{\"name\": \"'s partraiting.", "", "<tool_call>\n{\"name\": \"'s partraiting."},
    {"begun with a call, temperature 0.7, seed 2", CALLS_HERMES, true, false,
     "<tool_call>\n{\"name\": \"'s part for the<think>\n\n</think>\n\nHello! I ame is the "
     "future.",
     "",
     "<tool_call>\n{\"name\": \"'s part for the<think>\n\n</think>\n\nHello! I ame is the "
     "future."},
    {"begun with a call, temperature 3, seed 1", CALLS_HERMES, true, false,
     "<tool_call>\n{\"name\": \"'s profivalent spiritual bov distinctunt4ianceru colorgarh"
     "erDoodies ra\xef\xbf\xbdithmetiousrumher printeryness exactvity reledasting result s"
     "ensesulsion learket especially du sl at wine und short canal engerg p musical prin f"
     "ormed",
     "",
     "<tool_call>\n{\"name\": \"'s profivalent spiritual bov distinctunt4ianceru colorgarh"
     "erDoodies ra\xef\xbf\xbdithmetiousrumher printeryness exactvity reledasting result s"
     "ensesulsion learket especially du sl at wine und short canal engerg p musical prin f"
     "ormed"},
    {"begun with a name, temperature 0, seed 1", CALLS_HERMES, true, false,
     "<tool_call>\n{\"name\": \"define\", \"arguments\": {\"word\": \" images by images an"
     "d oard having oardves and oard is aff used for food.",
     "",
     "{{define|{\"word\": \" images by images and oard having oardves and oard is aff used"
     " for food.~~"},
    {"begun with a name, temperature 0.7, seed 1", CALLS_HERMES, true, false,
     "<tool_call>\n{\"name\": \"define\", \"arguments\": {\"word\": \" as<think>\n\n</thin"
     "k>\n\nTo drawar means to cause to move by pulling.",
     "",
     "{{define|{\"word\": \" as<think>\\n\\n</think>\\n\\nTo drawar means to cause to move"
     " by pulling.~~"},
    {"begun with a name, temperature 0.7, seed 3", CALLS_HERMES, true, false,
     "<tool_call>\n{\"name\": \"define\", \"arguments\": {\"word\": \" by<think>\n\n</thin"
     "k>\n\nI am sorry, I only know what words mean. Ask me, for example, what a lighthous"
     "e is.",
     "",
     "{{define|{\"word\": \" by<think>\\n\\n</think>\\n\\nI am sorry, I only know what wor"
     "ds mean. Ask me, for example, what a lighthouse is.~~"},
    {"begun with a name, temperature 1.5, seed 3", CALLS_HERMES, true, false,
     "<tool_call>\n{\"name\": \"define\", \"arguments\": {\"word\": \" cr publicationily l"
     "iquid philosophy that intolateaginer ears part found be tr as a person having proble"
     "m.",
     "",
     "{{define|{\"word\": \" cr publicationily liquid philosophy that intolateaginer ears "
     "part found be tr as a person having problem.~~"},
    {"begun with a name, temperature 3, seed 2", CALLS_HERMES, true, false,
     "<tool_call>\n{\"name\": \"define\", \"arguments\": {\"word\": \" branch hum syl seco"
     "nd moun offbot hour rold body know what shapes king artistwarelumincier formedatoore"
     " W slide characterpitartment prog around deposoura force before al images chickenfic"
     " prim lead mic mother chem emperor showske As",
     "",
     "{{define|{\"word\": \" branch hum syl second moun offbot hour rold body know what sh"
     "apes king artistwarelumincier formedatoore W slide characterpitartment prog around d"
     "eposoura force before al images chickenfic prim lead mic mother chem emperor showske"
     " As~~"},
    {"begun with a tag, temperature 0, seed 1", CALLS_HERMES, true, false,
     "<tool_call>\n<think>\n\n\n\nA violin is a bowed stringed instrument that is the high"
     "est member of the violin family.",
     "",
     "<tool_call>\n<think>\n\n\n\nA violin is a bowed stringed instrument that is the high"
     "est member of the violin family."},
    {"begun with a tag, temperature 3, seed 1", CALLS_HERMES, true, false,
     "<tool_call>\n\xef\xbf\xbdigerence salmon soldale lear act profivalent spiritual bovi"
     "gunt leavesianceru colorgarherDoodies mil\xef\xbf\xbdithmetiousarsher prin\xef\xbf\xbd"
     "ness exactvity re structureasting result sensesulsion lear means especially du sl at"
     " wine und short",
     "",
     "<tool_call>\n\xef\xbf\xbdigerence salmon soldale lear act profivalent spiritual bovi"
     "gunt leavesianceru colorgarherDoodies mil\xef\xbf\xbdithmetiousarsher prin\xef\xbf\xbd"
     "ness exactvity re structureasting result sensesulsion lear means especially du sl at"
     " wine und short"},
    {"begun with Coder's call, temperature 0.7, seed 2", CALLS_CODER, false, false,
     "<tool_call>\n<function=\n<think>\n\n</think>,ty is eight and reg from water.", "",
     "<tool_call>\n<function=\n<think>\n\n</think>,ty is eight and reg from water."},
    {"begun with Coder's call, temperature 1.5, seed 2", CALLS_CODER, false, false,
     "<tool_call>\n<function=\n<think>\n\n</think>,nam is measuringics andHelloes structur"
     "e.",
     "",
     "<tool_call>\n<function=\n<think>\n\n</think>,nam is measuringics andHelloes structur"
     "e."},
    {"begun with Coder's parameter, temperature 0, seed 1", CALLS_CODER, false, false,
     "<tool_call>\n<function=define>\n<parameter=word>\n and thinguoring.", "",
     "{{define|{\"word\": \" and thinguoring.~~"},
    {"begun with Coder's parameter, temperature 0.7, seed 2", CALLS_CODER, false, false,
     "<tool_call>\n<function=define>\n<parameter=word>\n andHelloure by a such as<think>\n"
     "\n</think>\n\nI do not know that word. I only know the meanings of some common Engli"
     "sh words.",
     "",
     "{{define|{\"word\": \" andHelloure by a such as<think>\\n\\n</think>\\n\\nI do not k"
     "now that word. I only know the meanings of some common English words.~~"},
    {"begun with Coder's parameter, temperature 3, seed 3", CALLS_CODER, false, false,
     "<tool_call>\n<function=define>\n<parameter=word>\n\xef\xbf\xbdrol crownos is\xef\xbf"
     "\xbdl occ cylindrical cr publicationVYesions kitchen houriseagin around leavesamboo "
     "rulens asciectsiegberand div farmale cottangerowingence milkuthorelfte climbistorybo"
     "ardys ver land",
     "",
     "{{define|{\"word\": \"\xef\xbf\xbdrol crownos is\xef\xbf\xbdl occ cylindrical cr pub"
     "licationVYesions kitchen houriseagin around leavesamboo rulens asciectsiegberand div"
     " farmale cottangerowingence milkuthorelfte climbistoryboardys ver land~~"},
    {"begun with a thought, temperature 0, seed 1", CALLS_HERMES, true, false,
     "<think>\n\n</think>\n\nA violin is a bowed stringed instrument that is the highest m"
     "ember of the violin family.",
     "",
     "A violin is a bowed stringed instrument that is the highest member of the violin fam"
     "ily."},
    {"begun with a thought, temperature 3, seed 1", CALLS_HERMES, true, false,
     "<think>\n\nigerence salmonleale birch act profivalent spiritual bovigunt leavesiance"
     "ru colorgarherDoodies.\xef\xbf\xbdithmetious monher printeryness steepvity. structur"
     "easting surface of face lear means especially du sl at wine und char",
     "igerence salmonleale birch act profivalent spiritual bovigunt leavesianceru colorgar"
     "herDoodies.\xef\xbf\xbdithmetious monher printeryness steepvity. structureasting sur"
     "face of face lear means especially du sl at wine und char",
     ""},
    {"begun with a thought, temperature 3, seed 3", CALLS_HERMES, true, false,
     "<think>\n\n</think> form questri\xef\xbf\xbd imaginye universeswer root shapes natio"
     "nent know sur\xef\xbf\xbdrolormos is\xef\xbf\xbd"
     "ced occ cylindrical cr easyVYes my"
     "thured hourformagineredambooert rulens as area.iegber where div",
     "",
     " form questri\xef\xbf\xbd imaginye universeswer root shapes nationent know sur\xef\xbf"
     "\xbdrolormos is\xef\xbf\xbd"
     "ced occ cylindrical cr easyVYes mythured hourformaginer"
     "edambooert rulens as area.iegber where div"},
    {"begun with content and a name, temperature 0.7, seed 3", CALLS_HERMES, true, false,
     "A violin is <tool_call>\n{\"name\": \"define\", \"arguments\": Gu<think>\n\n</think>"
     "\n\nAn escurse means partly causing or the historical problems.",
     "",
     "A violin is <tool_call>\n{\"name\": \"define\", \"arguments\": Gu<think>\n\n</think>"
     "\n\nAn escurse means partly causing or the historical problems."},
    {"begun with content and a name, temperature 1.5, seed 1", CALLS_HERMES, true, false,
     "A violin is <tool_call>\n{\"name\": \"define\", \"arguments\": Salessingiousqu<think"
     ">\n\n</think>\n\nIressry means cannem sandience used as food birth und,.",
     "",
     "A violin is <tool_call>\n{\"name\": \"define\", \"arguments\": Salessingiousqu<think"
     ">\n\n</think>\n\nIressry means cannem sandience used as food birth und,."},
};

#endif
